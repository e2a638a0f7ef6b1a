"""Images from whatever a user has: files, folders, videos, addresses, arrays, PIL pictures, and lists of them."""
from __future__ import annotations

import logging
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from frozenmm.compat.fetch import TransferLimits, fetch, offline
from frozenmm.compat.image_files import (
    VIDEO_SUFFIXES,
    array_pixels,
    list_images,
    picture_pixels,
    read_image_file,
    video_frames,
)
from frozenmm.compat.video_codecs import frame_count
from frozenmm.errors import MissingFile, UnreadableFile, UserError, WrongKind

ADDRESS_LIMITS = TransferLimits(seconds=120, size=256 << 20)
"""What an image or video behind an address may take."""


@dataclass(frozen=True)
class NamedImage:
    """An image.

    Attributes:
        name: file name without suffix, or a number; unique within one call.
        pixels: (H, W, 3) uint8 RGB.
        path: file or address that it comes from, empty for pictures in memory.
        frames_per_second: of the video that it comes from, 0 for pictures.
        frame: its number in that video.
        frames: how many that video says to have; 0 where nobody knows.
    """

    name: str
    pixels: np.ndarray
    path: str = ''
    frames_per_second: float = 0.0
    frame: int = 0
    frames: int = 0


def read_images(source: Any, *, channel_order: str = 'rgb', unreadable: list[str] | None = None,
                every: int = 1) -> Iterator[NamedImage]:
    """All images of a source, one after the other; nothing is read before it is asked for.

    Args:
        source: path of an image, folder or video; address (http, https) of an image or video; array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4) uint8; PIL picture; or a list or an iterator (generator) of these.
        channel_order: `'rgb'` or `'bgr'`, of arrays.
        every: of videos, take every n-th frame.
        unreadable: takes a sentence for each file of a folder or list that cannot be read, instead of an error.

    Raises:
        MissingFile: no such file, or a folder without images.
        UnreadableFile: a file that is no readable image or video, or an address that cannot be fetched.
        WrongKind: another kind of source.
        UserError: an array of another shape or type, an empty list, another channel order.
    """
    if channel_order not in ('rgb', 'bgr'):
        raise UserError(f'channel_order must be \'rgb\' or \'bgr\', got {channel_order!r}')
    if every < 1:
        raise UserError(f'every must be 1 (all frames of a video) or more, got {every}')
    taken: set[str] = set()
    for image in _read(source, _Reading(channel_order, every, unreadable), 0):
        name = image.name
        # a.jpg and a.png would write the same result files
        if name in taken and image.path:
            name = f'{name}_{Path(image.path).suffix.lstrip(".")}'
        number = 1
        while name in taken:
            number += 1
            name = f'{image.name}_{number}'
        taken.add(name)
        yield replace(image, name=name)


@dataclass(frozen=True)
class _Reading:
    """The options of `read_images`."""

    channel_order: str
    every: int
    unreadable: list[str] | None


def _read(source: Any, how: _Reading, index: int) -> Iterator[NamedImage]:
    if isinstance(source, str) and source.lower().startswith(('http://', 'https://')):
        yield from _read_address(source, how)
    elif isinstance(source, (str, Path)):
        if not str(source):
            raise UserError('the path of the images is empty; give a file or folder, or . for the current folder')
        yield from _read_path(Path(source).expanduser(), how)
    elif isinstance(source, np.ndarray):
        yield NamedImage(f'image_{index:04d}', array_pixels(source, how.channel_order))
    elif type(source).__module__.startswith('PIL.'):
        yield NamedImage(f'image_{index:04d}', picture_pixels(source))
    elif isinstance(source, Sequence) and not isinstance(source, bytes):
        if not source:
            raise UserError('the list of images is empty')
        # a single file that cannot be read leaves nothing to go on with
        alone = len(source) == 1 and isinstance(source[0], str | Path) and not Path(source[0]).is_dir()
        for place, item in enumerate(source):
            yield from _read(item, replace(how, unreadable=None) if alone else how, place)
    elif isinstance(source, Iterator):
        for place, item in enumerate(source):
            yield from _read(item, how, place)
    else:
        raise WrongKind('an image is a path, an address, a numpy array (H, W, 3) uint8, a PIL picture, a list or '
                        f'an iterator of these; got {type(source).__name__}')


def _read_path(path: Path, how: _Reading) -> Iterator[NamedImage]:
    if not path.exists():
        raise MissingFile(f'there is no image {path.resolve()}')
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        total = frame_count(path)
        for count, (pixels, rate) in enumerate(video_frames(path, every=how.every)):
            frame = count * how.every
            yield NamedImage(f'{path.stem}_{frame:06d}', pixels, str(path), rate, frame, total)
        return
    for file in list_images(path) if path.is_dir() else [path]:
        try:
            pixels = read_image_file(file)
        except UserError as error:
            if how.unreadable is None:
                raise
            how.unreadable.append(str(error))
            print_log(str(error), logger='current', level=logging.WARNING)
            continue
        yield NamedImage(file.stem, pixels, str(file))


def _read_address(address: str, how: _Reading) -> Iterator[NamedImage]:
    if offline():
        raise UnreadableFile(f'FROZENMM_OFFLINE is set, so {address} is not fetched; give a file instead')
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name.lstrip('.') or 'image'
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        try:
            fetch(address, file, title=address, limits=ADDRESS_LIMITS)
        except OSError as error:
            raise UnreadableFile(f'{address} cannot be fetched ({error}); check the address, or give a file '
                                 'instead') from None
        for image in _read_path(file, replace(how, unreadable=None)):
            yield replace(image, path=address)
