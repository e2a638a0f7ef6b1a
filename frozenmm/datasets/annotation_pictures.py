"""Pictures whose pixels are numbers: label, instance and segment maps."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from frozenmm.compat.image_files import open_picture
from frozenmm.errors import reading

VOID_8BIT, VOID_16BIT = 255, 65535
"""Pixels without annotation in label maps of at most 255 classes, and of more."""


def read_picture(path: Path, *, mode: str = '', kind: str = 'a picture') -> np.ndarray:
    """The pixels of a picture as they are stored (palette indices of a palette picture), or in another mode of Pillow.

    Args:
        path: the file.
        mode: of Pillow, e.g. `'RGB'`; empty for what the file has.
        kind: what the file should be, for the error.

    Returns:
        (H, W), or (H, W, C) with several channels; of the file's type.

    Raises:
        MissingFile: no such file.
        UnreadableFile: no picture, or a damaged one.
    """
    with reading(path, kind, 'is its archive unpacked completely?'), open_picture(Path(path)) as picture:
        return np.asarray(picture.convert(mode) if mode else picture)
