"""Images of one size from files; depth maps at their size."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.compat.image_files import list_images, natural_key, read_image_file
from frozenmm.errors import UserError

__all__ = ['Progress', 'list_images', 'natural_key', 'read_images', 'resize_depth']

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, units done and their total."""


def read_images(paths: Sequence[Path]) -> np.ndarray:
    """RGB images (F, H, W, 3) uint8.

    Raises:
        MissingFile: a file is missing.
        UserError: a file is no image, or sizes differ.
    """
    images: list[np.ndarray] = []
    for path in paths:
        images.append(read_image_file(Path(path)))
        if images[-1].shape != images[0].shape:
            (height, width), (first_height, first_width) = images[-1].shape[:2], images[0].shape[:2]
            raise UserError(f'{path.name} has {width}x{height} pixels, but {paths[0].name} has '
                            f'{first_width}x{first_height}; all frames must come from one camera at one size')
    return np.stack(images)


def resize_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth maps (F, h, w) resized bilinearly to (height, width)."""
    cv2 = require('cv2', 'resizing depth')
    if depth.shape[1:] == tuple(size):
        return depth
    return np.stack([cv2.resize(m.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) for m in depth])
