"""Frames from folders, lists of images or a video."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.compat.image_files import VIDEO_SUFFIXES, list_images, natural_key, read_image_file, video_frames
from frozenmm.errors import UserError

__all__ = ['Progress', 'VIDEO_SUFFIXES', 'list_images', 'natural_key', 'read_images', 'read_video', 'resize_depth']

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


def read_video(path: Path, *, every: int = 10, limit: int | None = None) -> np.ndarray:
    """Every n-th frame of a video, RGB (F, H, W, 3) uint8; counted from 1, so the first one is frame n.

    Raises:
        MissingFile: no such file.
        UserError: the file cannot be decoded or is shorter than n frames.
    """
    frames: list[np.ndarray] = []
    count = 0
    for count, (frame, _) in enumerate(islice(video_frames(path), None if limit is None else limit * every), 1):
        if count % every == 0:
            frames.append(frame)
    if not frames:
        raise UserError(f'{path.resolve()} has {count} frames, fewer than every={every}; use a smaller step')
    return np.stack(frames)


def resize_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth maps (F, h, w) resized bilinearly to (height, width)."""
    cv2 = require('cv2', 'resizing depth')
    if depth.shape[1:] == tuple(size):
        return depth
    return np.stack([cv2.resize(m.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) for m in depth])
