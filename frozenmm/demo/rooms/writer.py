"""Generated rooms on disk: images, depth in millimetres, focal lengths.

Every image depends on the seed, its split and its number alone, so an interrupted run goes on where it stopped and
gives the same files.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from frozenmm.compat.files import write_whole
from frozenmm.demo.painted_folder import SPLITS, PaintedFolder
from frozenmm.demo.rooms.paint import paint_room
from frozenmm.errors import UserError

VERSION = 1
"""Raised whenever the same settings would give other pictures."""


@dataclass(frozen=True)
class RoomImages:
    """What decides the content of a folder of rooms.

    Attributes:
        train: number of training images.
        val: number of test images, with photographs on their surfaces that never occur in training.
        size: (height, width) in pixels.
        seed: everything random follows from it.
    """

    train: int = 320
    val: int = 40
    size: tuple[int, int] = (192, 256)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.val) < 1:
            raise UserError(f'train and val must be at least 1, got {self.train} and {self.val}')
        if len(self.size) != 2 or min(self.size) < 32:
            raise UserError(f'size must be a height and a width of at least 32 pixels, got {self.size}')


def painted_rooms(folder: str | Path, settings: RoomImages = RoomImages()) -> PaintedFolder:
    """What is known of a folder of rooms."""
    return PaintedFolder(folder, 'rooms', settings, version=VERSION)


def write_rooms(folder: str | Path, settings: RoomImages = RoomImages()) -> Path:
    """Make the rooms in a folder, or whatever is missing of them.

    Args:
        folder: gets `images/{train,val}/*.jpg`, `depth/{train,val}/*.png` (uint16 millimetres) and `rooms.json`.
        settings: number, size, seed.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds rooms made with other settings.
    """
    rooms = painted_rooms(folder, settings)
    if rooms.is_complete():
        return rooms.folder
    jobs = [(split, index) for split in SPLITS for index in range(getattr(settings, split))]
    # the depth of an image is written after it, so where it is, both are
    rooms.paint(jobs, lambda job: _path(rooms.folder, 'depth', *job).is_file(),
                lambda job: _write_room(rooms.folder, *job, settings))
    return rooms.finish()


def _write_room(folder: Path, split: str, index: int, settings: RoomImages) -> None:
    picture = paint_room(split, settings.size, np.random.default_rng([settings.seed, SPLITS.index(split), index]))
    content = cv2.imencode('.jpg', picture.image, [cv2.IMWRITE_JPEG_QUALITY, 93])[1].tobytes()
    write_whole(_path(folder, 'images', split, index), content)
    steps = np.clip(np.rint(picture.depth * 1000), 0, 65535).astype(np.uint16)
    write_whole(_path(folder, 'depth', split, index), cv2.imencode('.png', steps)[1].tobytes())


def _path(folder: Path, kind: str, split: str, index: int) -> Path:
    return folder / kind / split / f'{split}_{index:05d}{".jpg" if kind == "images" else ".png"}'
