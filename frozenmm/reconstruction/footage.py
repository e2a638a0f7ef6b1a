"""Images of a folder or video as one camera would have taken them: one size, one focal length, centred, no lens.

Photographs of several sizes or zooms are scaled to one focal length and laid on a common canvas by their centres; where
a calibration is given they are straightened. So whatever comes after knows one pinhole only, and pixels of the canvas
that show nothing are marked.
"""
from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from frozenmm.compat.dependencies import require
from frozenmm.compat.image_files import VIDEO_SUFFIXES, list_images, read_image_file, video_frames
from frozenmm.errors import UnreadableFile, UserError
from frozenmm.reconstruction.given_lens import GivenLens, exif_focal

VIDEO_STEP = 10
LONGEST_SIDE = 1024
SAME_FOCAL = 1.02
"""Ratio of focal lengths up to which photographs are of one zoom."""


@dataclass(frozen=True)
class Place:
    """Where an image lies on the canvas.

    Attributes:
        source: (height, width) of the image before it was straightened.
        looks: (h, w, 2) where the pixels of the straightened image look in it; None: it is as it was.
        inside: rows and columns of the canvas.
    """

    source: tuple[int, int]
    looks: np.ndarray | None
    inside: tuple[slice, slice]


@dataclass
class Footage:
    """Frames on one canvas.

    Attributes:
        images: (F, H, W, 3) uint8.
        names: of the frames, with suffix.
        places: of the frames on the canvas.
        focal_px: focal length on the canvas, where a calibration gives it.
        focal_prior_px: about what it is, by EXIF.
        unreadable: a sentence for every file that was left out.
        listed: names of all frames, those of files left out too.
        scale: pixels of the canvas per pixel of the first image as it is in its file.
    """

    images: np.ndarray
    names: list[str]
    places: list[Place]
    focal_px: float | None = None
    focal_prior_px: float | None = None
    unreadable: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    scale: float = 1.0

    @property
    def outside(self) -> np.ndarray | None:
        """(F, H, W) bool, pixels of the canvas that show nothing; None: there are none."""
        size = self.images.shape[1:3]
        if all(place.looks is None and _covers(place.inside, size) for place in self.places):
            return None
        return np.stack([np.isnan(self.laid(np.ones(place.source, np.float32), index))
                         for index, place in enumerate(self.places)])

    def laid(self, values: np.ndarray, frame: int) -> np.ndarray:
        """Values (h, w) of a frame's image at any size on the canvas (H, W) float32; NaN where there are none."""
        cv2, place = require('cv2', 'resizing depth'), self.places[frame]
        values = resized_depth(values, place.source)
        if place.looks is not None:
            values = cv2.remap(values, place.looks, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
                               borderValue=float('nan'))
        canvas = np.full(self.images.shape[1:3], np.nan, np.float32)
        canvas[place.inside] = values
        return canvas


def _covers(inside: tuple[slice, slice], size: tuple[int, int]) -> bool:
    return all(part.stop - part.start == side for part, side in zip(inside, size))


def resized_depth(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth (h, w) at (height, width) float32, bilinear; what touches a missing value (NaN) is missing."""
    cv2 = require('cv2', 'resizing depth')
    values = np.asarray(values, np.float32)
    if values.shape == tuple(size):
        return values
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)


def read_footage(source: str | Path, every: int | None = None, *, longest_side: int = LONGEST_SIDE,
                 lens: GivenLens | None = None) -> Footage:
    """Frames of a folder of images or of a video; what cannot be read is left out.

    Args:
        source: the input.
        every: every n-th frame; by default 1 of a folder and 10 of a video.
        longest_side: larger images are made smaller, to this many pixels.
        lens: calibration of all of them.

    Raises:
        MissingFile: no such input.
        UserError: no image can be read, images share a name, or do not fit the calibration.
    """
    source, found = Path(source).expanduser(), _Frames(longest_side)
    if source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES:
        for frame in _video(source, every or VIDEO_STEP):
            found.keep(frame)
        found.names = found.listed = [f'{index + 1:06d}.jpg' for index in range(len(found.images))]
    elif source.is_file():
        raise UserError(f'{source} is neither a folder of images nor a video ({", ".join(VIDEO_SUFFIXES)})')
    else:
        _read_folder(source, every or 1, found)
    if lens is not None and lens.size is None:
        lens = replace(lens, size=found.sizes[0])
    footage = _on_canvas(found.images, found.names, _exif_focals(found.files) if lens is None else [], lens)
    footage.unreadable, footage.listed = found.unreadable, found.listed
    footage.scale = max(footage.places[0].source) / max(found.sizes[0])
    return footage


@dataclass
class _Frames:
    """What was read: images at most `longest_side` large, the sizes that they had, and what was left out."""

    longest_side: int
    images: list[np.ndarray] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def keep(self, image: np.ndarray) -> None:
        """Add an image (H, W, 3)."""
        self.sizes.append((image.shape[0], image.shape[1]))
        self.images.append(smaller(image, self.longest_side))


def _read_folder(folder: Path, every: int, found: _Frames) -> None:
    paths = list_images(folder, every=every)
    twice = next((path for path, count in Counter(path.stem for path in paths).items() if count > 1), None)
    if twice is not None:
        raise UserError(f'{folder} holds several images called {twice}, whose depth maps would get one name; give a '
                        'folder with the colour images only')
    for path in paths:
        try:
            found.keep(read_image_file(path))
            found.files.append(path)
        except UnreadableFile as error:
            found.unreadable.append(str(error))
            print_log(f'left out: {error}', 'current', level=logging.WARNING)
    if not found.images:
        raise UserError(f'none of the {len(paths)} images of {folder} can be read: {found.unreadable[0]}')
    found.names, found.listed = [path.name for path in found.files], [path.name for path in paths]


def _video(path: Path, every: int) -> Iterator[np.ndarray]:
    """Every n-th frame, counted from 1, so the first one is frame n."""
    count = 0
    for count, (frame, _) in enumerate(video_frames(path), 1):
        if count % every == 0:
            yield frame
    if count < every:
        raise UserError(f'{path.resolve()} has {count} frames, fewer than every={every}; use a smaller step')


def smaller(image: np.ndarray, longest_side: int) -> np.ndarray:
    """An image (H, W, 3) whose longer side is at most that."""
    factor = longest_side / max(image.shape[:2])
    return image if factor >= 1 else _scaled(image, factor)


def _scaled(image: np.ndarray, factor: float) -> np.ndarray:
    cv2 = require('cv2', 'resizing images')
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def _exif_focals(files: Sequence[Path]) -> list[float]:
    """Focal lengths over the longer side, of all files or none."""
    found = [exif_focal(path) for path in files]
    return [focal for focal in found if focal is not None] if None not in found else []


def _on_canvas(images: list[np.ndarray], names: list[str], ratios: list[float], lens: GivenLens | None) -> Footage:
    """Images of one focal length, by their centres on a common canvas."""
    cv2 = require('cv2', 'straightening images')
    focals = [ratio * max(image.shape[:2]) for ratio, image in zip(ratios, images)]
    by = focals or [float(max(image.shape[:2])) for image in images]
    if len({image.shape for image in images}) > 1 or (focals and max(by) / min(by) > SAME_FOCAL):
        common = min(by)
        images = [image if abs(common / own - 1) < 0.01 else _scaled(image, common / own)
                  for image, own in zip(images, by)]
        focals = [common] if focals else []
    sources = [(image.shape[0], image.shape[1]) for image in images]
    looks: list[np.ndarray | None] = [None] * len(images)
    focal_px = None
    if lens is not None:
        lenses = [lens.at(size, name) for size, name in zip(sources, names)]
        focal_px = float(lenses[0].matrix[0, 0])
        straight = [own.straightening(size, focal_px) for own, size in zip(lenses, sources)]
        images = [cv2.remap(image, look, None, cv2.INTER_LINEAR) for image, look in zip(images, straight)]
        looks = [*straight]
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    canvas, places = np.zeros((len(images), height, width, 3), np.uint8), []
    for index, (image, source) in enumerate(zip(images, sources)):
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        inside = slice(top, top + image.shape[0]), slice(left, left + image.shape[1])
        canvas[index][inside] = image
        places.append(Place(source, looks[index], inside))
    return Footage(canvas, names, places, focal_px, float(np.median(focals)) if focals else None)


def first_alike(images: np.ndarray) -> np.ndarray:
    """(F, ) index of the earliest frame of images (F, H, W, 3) of which a frame is a copy; its own where it is none.

    Copies come from videos whose frames were doubled. Each is compared with all before it at a quarter of the size.

    >>> first_alike(np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 99), np.zeros((8, 8, 3))]).astype(np.uint8))
    array([0, 1, 0])
    """
    cv2 = require('cv2', 'resizing images')
    size = max(1, images.shape[2] // 4), max(1, images.shape[1] // 4)
    small = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]).astype(np.int16)
    found, kept = np.arange(len(images)), [0]
    means = small.mean((1, 2, 3))
    for frame in range(1, len(images)):
        for other in (k for k in kept if abs(means[k] - means[frame]) < 0.5):
            off = np.abs(small[other] - small[frame])
            if off.mean() < 0.5 and off.max() <= 12:
                found[frame] = other
                break
        else:
            kept.append(frame)
    return found
