"""Pictures whose pixels are numbers: label, instance and segment maps."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from frozenmm.compat import require

VOID_8BIT, VOID_16BIT = 255, 65535
"""Pixels without annotation in label maps of at most 255 classes, and of more."""


def read_picture(path: Path, *, mode: str = '') -> np.ndarray:
    """The pixels of a picture as they are stored (palette indices of a palette picture), or in another mode of Pillow.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no readable picture.
    """
    pil = require('PIL.Image', 'annotation maps')
    if not path.is_file():
        raise FileNotFoundError(f'there is no {path.absolute()}; is the archive unpacked completely?')
    try:
        with pil.open(path) as picture:
            return np.asarray(picture.convert(mode) if mode else picture)
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path} is no readable picture ({error}); unpack its archive again') from None
