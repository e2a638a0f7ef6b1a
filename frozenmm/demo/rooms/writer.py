"""Generated rooms on disk: images, depth in millimetres, focal lengths.

Every image depends on the seed, its split and its number alone, so an interrupted run goes on where it stopped and
gives the same files.
"""
from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log

from frozenmm.compat.files import write_whole
from frozenmm.demo.rooms.paint import paint_room

VERSION = 1
"""Raised whenever the same settings would give other pictures."""
SPLITS = ('train', 'val')


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
            raise ValueError(f'train and val must be at least 1, got {self.train} and {self.val}')
        if len(self.size) != 2 or min(self.size) < 32:
            raise ValueError(f'size must be a height and a width of at least 32 pixels, got {self.size}')


def write_rooms(folder: str | Path, settings: RoomImages = RoomImages()) -> Path:
    """Make the rooms in a folder, or whatever is missing of them.

    Args:
        folder: gets `images/{train,val}/*.jpg`, `depth/{train,val}/*.png` (uint16 millimetres) and `rooms.json`.
        settings: number, size, seed.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds rooms made with other settings.
    """
    folder = Path(folder)
    wanted = json.loads(json.dumps({'version': VERSION, **asdict(settings)}))
    manifest = folder / 'rooms.json'
    if manifest.is_file():
        found = json.loads(manifest.read_text())
        if found['settings'] != wanted:
            raise ValueError(f'{folder} holds rooms made with {found["settings"]}, but {wanted} is asked for; remove '
                             'the folder or name another one')
        if found['complete']:
            return folder
    write_whole(manifest, json.dumps({'settings': wanted, 'complete': False}, indent=1).encode())
    jobs = [(split, index) for split in SPLITS for index in range(getattr(settings, split))]
    # the depth of an image is written after it, so where it is, both are
    missing = [job for job in jobs if not _path(folder, 'depth', *job).is_file()]
    start = time.perf_counter()
    for done, (split, index) in enumerate(missing):
        if done % 100 == 0:
            left = f', {(time.perf_counter() - start) / done * (len(missing) - done):.0f} s left' if done else ''
            print_log(f'{folder}: {len(jobs) - len(missing) + done} of {len(jobs)} rooms painted{left}', 'current')
        picture = paint_room(split, settings.size, np.random.default_rng([settings.seed, SPLITS.index(split), index]))
        content = cv2.imencode('.jpg', picture.image, [cv2.IMWRITE_JPEG_QUALITY, 93])[1].tobytes()
        write_whole(_path(folder, 'images', split, index), content)
        steps = np.clip(np.rint(picture.depth * 1000), 0, 65535).astype(np.uint16)
        write_whole(_path(folder, 'depth', split, index), cv2.imencode('.png', steps)[1].tobytes())
    write_whole(manifest, json.dumps({'settings': wanted, 'complete': True}, indent=1).encode())
    return folder


def _path(folder: Path, kind: str, split: str, index: int) -> Path:
    return folder / kind / split / f'{split}_{index:05d}{".jpg" if kind == "images" else ".png"}'
