"""The photographs that come inside scikit-image's wheel, read without any download."""
from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from frozenmm.compat import require

Image = np.ndarray
"""(H, W, 3) uint8, channels in OpenCV's order (BGR)."""


@cache
def photograph(name: str) -> Image:
    """One bundled photograph, never to be written to.

    Args:
        name: file name in scikit-image's data folder, e.g. `'chelsea.png'`.

    Raises:
        MissingDependency: scikit-image is not installed.
        FileNotFoundError: this release of scikit-image does not carry the file.
    """
    folder = Path(require('skimage', 'the generated scenes').data_dir)
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; the generated scenes need the photographs that come with '
                                'scikit-image 0.26.0 (pip install scikit-image==0.26.0)')
    # Pillow, because OpenCV's reader complains on the terminal about a colour profile in one of them
    with require('PIL.Image', 'the generated scenes').open(path) as file:
        image = np.ascontiguousarray(np.asarray(file.convert('RGB'))[..., ::-1])
    image.setflags(write=False)
    return image
