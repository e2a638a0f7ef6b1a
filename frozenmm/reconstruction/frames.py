"""Frames from folders, lists of images or a video."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.errors import MissingFile, UserError, reading

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
Progress = Callable[[str, int, int], None]
"""Called with the name of a step, units done and their total."""
VIDEO_SUFFIXES = ('.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v')


def natural_key(path: Path) -> tuple:
    """Sort key under which frame 10 follows frame 9.

    >>> [path.name for path in sorted([Path('f10.png'), Path('f9.png')], key=natural_key)]
    ['f9.png', 'f10.png']
    """
    return tuple(int(part) if part.isdigit() else part.lower() for part in re.split(r'(\d+)', path.name))


def list_images(folder: Path, *, every: int = 1) -> list[Path]:
    """Images of a folder in natural order, every n-th of them.

    Raises:
        MissingFile: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise MissingFile(f'there is no folder {folder.resolve()}; give a folder of images or a video file')
    paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural_key)[::every]
    if not paths:
        raise MissingFile(f'{folder.resolve()} holds no image; expected files ending in '
                          f'{", ".join(IMAGE_SUFFIXES)}')
    return paths


def read_images(paths: Sequence[Path]) -> np.ndarray:
    """RGB images (F, H, W, 3) uint8.

    Raises:
        MissingFile: a file is missing.
        UserError: a file is no image, or sizes differ.
    """
    cv2 = require('cv2', 'reading images')
    images: list[np.ndarray] = []
    for path in paths:
        if not path.is_file():
            raise MissingFile(f'there is no image {path.resolve()}')
        with reading(path.resolve(), 'an image', 'convert or drop it'):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f'{path.resolve()} cannot be decoded as an image; is it complete?')
        if images and image.shape != images[0].shape:
            raise UserError(f'{path.name} has {image.shape[1]}x{image.shape[0]} pixels, but {paths[0].name} has '
                            f'{images[0].shape[1]}x{images[0].shape[0]}; all frames must come from one camera at one '
                            'size')
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return np.stack(images)


def read_video(path: Path, *, every: int = 10, limit: int | None = None) -> np.ndarray:
    """Every n-th frame of a video, RGB (F, H, W, 3) uint8; counted from 1, so the first one is frame n.

    Raises:
        MissingFile: no such file.
        UserError: the file cannot be decoded or is shorter than n frames.
    """
    if not path.is_file():
        raise MissingFile(f'there is no video {path.resolve()}')
    cv2 = require('cv2', 'reading videos')
    capture = cv2.VideoCapture(str(path))
    frames: list[np.ndarray] = []
    count = 0
    try:
        while limit is None or len(frames) < limit:
            there, frame = capture.read()
            if not there:
                break
            count += 1
            if count % every == 0:
                frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    if not count:
        raise UserError(f'{path.resolve()} cannot be decoded as a video; convert it, e.g. to H.264 in an .mp4 file')
    if not frames:
        raise UserError(f'{path.resolve()} has {count} frames, fewer than every={every}; use a smaller step')
    return np.stack(frames)


def resize_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth maps (F, h, w) resized bilinearly to (height, width)."""
    cv2 = require('cv2', 'resizing depth')
    if depth.shape[1:] == tuple(size):
        return depth
    return np.stack([cv2.resize(m.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) for m in depth])
