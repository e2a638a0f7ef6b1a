"""Images from whatever a user has: files, folders, videos, addresses, arrays, PIL pictures, and lists of them."""
from __future__ import annotations

import tempfile
import urllib.parse
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.compat import require
from frozenmm.compat.fetch import fetch, offline

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
MAX_PIXELS = 1 << 28
"""268 megapixels; more than that is taken for a mistake, as decoding alone needs gigabytes."""


@dataclass(frozen=True)
class NamedImage:
    """An image.

    Attributes:
        name: file name without suffix, or a number; unique within one call.
        pixels: (H, W, 3) uint8 RGB.
        path: file or address that it comes from, empty for pictures in memory.
        frames_per_second: of the video that it comes from, 0 for pictures.
    """

    name: str
    pixels: np.ndarray
    path: str = ''
    frames_per_second: float = 0.0


def read_images(source: Any, *, channel_order: str = 'rgb') -> Iterator[NamedImage]:
    """All images of a source, one after the other; nothing is read before it is asked for.

    Args:
        source: path of an image, folder or video; address (http, https) of an image or video; array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4) uint8; PIL picture; or a list of these.
        channel_order: `'rgb'` or `'bgr'`, of arrays.

    Raises:
        FileNotFoundError: no such file, or a folder without images.
        ValueError: a file that is no readable image or video, an array of another shape or type, an empty list.
        OSError: an address that cannot be reached, or `FROZENMM_OFFLINE` is set.
        TypeError: another kind of source.
    """
    if channel_order not in ('rgb', 'bgr'):
        raise ValueError(f'channel_order must be \'rgb\' or \'bgr\', got {channel_order!r}')
    taken: set[str] = set()
    for image in _read(source, channel_order, 0):
        name = image.name
        # a.jpg and a.png would write the same result files
        if name in taken and image.path:
            name = f'{name}_{Path(image.path).suffix.lstrip(".")}'
        number = 1
        while name in taken:
            number += 1
            name = f'{image.name}_{number}'
        taken.add(name)
        yield NamedImage(name, image.pixels, image.path, image.frames_per_second)


def _read(source: Any, channel_order: str, index: int) -> Iterator[NamedImage]:
    if isinstance(source, str) and source.lower().startswith(('http://', 'https://')):
        yield from _read_address(source)
    elif isinstance(source, (str, Path)):
        yield from _read_path(Path(source).expanduser())
    elif isinstance(source, np.ndarray):
        yield NamedImage(f'image_{index:04d}', array_pixels(source, channel_order))
    elif type(source).__module__.startswith('PIL.'):
        yield NamedImage(f'image_{index:04d}', picture_pixels(source))
    elif isinstance(source, Sequence) and not isinstance(source, bytes):
        if not source:
            raise ValueError('the list of images is empty')
        for place, item in enumerate(source):
            yield from _read(item, channel_order, place)
    else:
        raise TypeError('an image is a path, an address, a numpy array (H, W, 3) uint8, a PIL picture, or a list of '
                        f'these; got {type(source).__name__}')


def _read_path(path: Path) -> Iterator[NamedImage]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise FileNotFoundError(f'the folder {path.resolve()} holds no image ({", ".join(IMAGE_SUFFIXES)})')
        for file in files:
            yield NamedImage(file.stem, read_image_file(file), str(file))
    elif not path.is_file():
        raise FileNotFoundError(f'there is no image {path.resolve()}')
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _read_video(path)
    else:
        yield NamedImage(path.stem, read_image_file(path), str(path))


def _read_address(address: str) -> Iterator[NamedImage]:
    if offline():
        raise OSError(f'FROZENMM_OFFLINE is set, so {address} is not fetched; give a file instead')
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name.lstrip('.') or 'image'
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        try:
            fetch(address, file, title=address)
        except (OSError, ValueError) as error:
            raise OSError(f'{address} cannot be fetched ({error}); check the address, or give a file instead') from None
        for image in _read_path(file):
            yield NamedImage(image.name, image.pixels, address, image.frames_per_second)


def read_image_file(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, turned as its EXIF entry says.

    Raises:
        ValueError: too large, or not readable.
    """
    pil = require('PIL.Image', 'reading images')
    with warnings.catch_warnings():
        # its own limits, which are lower and would not say what to do
        warnings.simplefilter('ignore', pil.DecompressionBombWarning)
        try:
            with pil.open(path) as picture:
                return picture_pixels(picture, str(path))
        except pil.DecompressionBombError:
            raise ValueError(_too_large(str(path), 'far more')) from None
        except (OSError, SyntaxError) as error:
            raise ValueError(f'{path} is no readable image ({error}); is it complete?') from None


def picture_pixels(picture: Any, name: str = 'the picture') -> np.ndarray:
    """(H, W, 3) uint8 RGB of a PIL picture of any mode; transparent parts become white.

    Raises:
        ValueError: too large.
    """
    pil, ops = require('PIL.Image', 'reading images'), require('PIL.ImageOps', 'reading images')
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(_too_large(name, f'{picture.width}x{picture.height}'))
    picture = ops.exif_transpose(picture)
    if picture.mode.startswith('I') or picture.mode == 'F':
        return array_pixels(_to_bytes(np.asarray(picture, np.float64)))
    if picture.mode in ('RGBA', 'LA', 'PA') or 'transparency' in picture.info:
        picture = picture.convert('RGBA')
        ground = pil.new('RGBA', picture.size, (255, 255, 255, 255))
        picture = pil.alpha_composite(ground, picture)
    return np.array(picture.convert('RGB'))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Gray values of more than 8 bits as 8 bits: 0..65535 where they need it, else 0..255."""
    scale = 257 if values.max(initial=0) > 255 else 1
    return np.clip(values / scale, 0, 255).round().astype(np.uint8)


def array_pixels(array: np.ndarray, channel_order: str = 'rgb') -> np.ndarray:
    """(H, W, 3) uint8 RGB of an array; transparent parts become white.

    Raises:
        ValueError: another shape or type, or no pixel.
    """
    if array.dtype != np.uint8:
        raise ValueError(f'image arrays must be uint8, 0 to 255, got {array.dtype}; multiply values of 0 to 1 with 255 '
                         'and convert')
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ValueError('image arrays must have the shape (height, width), or (height, width, channels) with 1, 3 or '
                         f'4 channels, and at least one pixel; got {array.shape}')
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(_too_large('the array', f'{array.shape[1]}x{array.shape[0]}'))
    colours = array[..., :3]
    if channel_order == 'bgr' and array.shape[2] > 1:
        colours = colours[..., ::-1]
    if array.shape[2] == 4:
        alpha = array[..., 3:].astype(np.float32) / 255
        colours = (colours * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (*array.shape[:2], 3)))


def _too_large(name: str, size: str) -> str:
    return (f'{name} has {size} pixels, more than the {MAX_PIXELS >> 20} million that are read; make it smaller or cut '
            'it into parts first')


def _read_video(path: Path) -> Iterator[NamedImage]:
    cv2 = require('cv2', 'reading videos')
    video = cv2.VideoCapture(str(path))
    try:
        rate = float(video.get(cv2.CAP_PROP_FPS)) or 25.0
        number = 0
        while True:
            found, frame = video.read()
            if not found:
                break
            yield NamedImage(f'{path.stem}_{number:06d}', array_pixels(frame, 'bgr'), str(path), rate)
            number += 1
        if number == 0:
            raise ValueError(f'{path} is no video that OpenCV can read; is it complete? Convert it, e.g. with ffmpeg, '
                             'or give its frames as a folder')
    finally:
        video.release()
