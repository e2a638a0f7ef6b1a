"""Pictures and videos in files and folders: one list of suffixes, one order, one way to read each."""
from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.errors import MissingFile, UnreadableFile, UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif')
FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'GIF', 'PPM', 'AVIF')
"""Pillow's names of the formats that are read."""
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
MAX_PIXELS = 1 << 28
"""268 megapixels; more than that is taken for a mistake, as decoding alone needs gigabytes."""


def natural_key(path: Path) -> tuple[tuple[bool, int, str], ...]:
    """Sort key under which frame 10 follows frame 9.

    >>> sorted([Path('a10.png'), Path('a9.png'), Path('7.png')], key=natural_key)
    [PosixPath('7.png'), PosixPath('a9.png'), PosixPath('a10.png')]
    """
    # digits and words alternate, so that numbers are only compared with numbers
    return tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part.lower())
                 for part in re.split(r'(\d+)', path.name))


def list_images(folder: str | Path, *, every: int = 1, below: bool = False) -> list[Path]:
    """Images of a folder in natural order, every n-th of them.

    Args:
        folder: where to look.
        every: n.
        below: also look in the folders below it.

    Raises:
        MissingFile: no such folder, or no image in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise MissingFile(f'there is no folder {folder.resolve()}; give a folder of images or a video file')
    found = [path for path in (folder.rglob('*') if below else folder.iterdir())
             if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise MissingFile(f'the folder {folder.resolve()} holds no image; expected files ending in '
                          f'{", ".join(IMAGE_SUFFIXES)}')
    return sorted(found, key=lambda path: [natural_key(Path(part)) for part in path.relative_to(folder).parts])[::every]


def read_image_file(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, turned as its EXIF entry says.

    Raises:
        MissingFile: no such file.
        UnreadableFile: not readable.
        UserError: too large.
    """
    if not path.is_file():
        raise MissingFile(f'there is no image {path.resolve()}')
    pil = require('PIL.Image', 'reading images')
    with warnings.catch_warnings():
        # its own limits, which are lower and would not say what to do
        warnings.simplefilter('ignore', pil.DecompressionBombWarning)
        try:
            with open_picture(path) as picture:
                return picture_pixels(picture, str(path))
        except pil.DecompressionBombError:
            raise UserError(_too_large(str(path), 'far more')) from None
        except UserError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them stumble over
            raise UnreadableFile(f'{path} is no readable image ({error}); is it complete?') from None


def open_picture(path: Path) -> Any:
    """A picture by Pillow, its header read; of the formats of `FORMATS` only.

    Some of Pillow's readers start programs (an EPS starts Ghostscript), and which one reads a file is not said by its
    name.

    Raises:
        UnreadableFile: another format. Damaged files raise whatever the reader stumbles over.
    """
    pil = require('PIL.Image', 'reading images')
    try:
        return pil.open(path, formats=FORMATS)
    except pil.UnidentifiedImageError:
        raise UnreadableFile(f'{path} is no readable image (none of {", ".join(FORMATS)}); convert it, or fetch it '
                             'again') from None


def picture_pixels(picture: Any, name: str = 'the picture') -> np.ndarray:
    """(H, W, 3) uint8 RGB of a PIL picture of any mode; transparent parts become white.

    Raises:
        UserError: too large.
    """
    pil, ops = require('PIL.Image', 'reading images'), require('PIL.ImageOps', 'reading images')
    if picture.width * picture.height > MAX_PIXELS:
        raise UserError(_too_large(name, f'{picture.width}x{picture.height}'))
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
        UserError: another shape or type, or no pixel.

    >>> array_pixels(np.zeros((2, 3), np.uint8)).shape
    (2, 3, 3)
    """
    if array.dtype != np.uint8:
        raise UserError(f'image arrays must be uint8, 0 to 255, got {array.dtype}; multiply values of 0 to 1 with 255 '
                        'and convert')
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError('image arrays must have the shape (height, width), or (height, width, channels) with 1, 3 or '
                        f'4 channels, and at least one pixel; got {array.shape}')
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise UserError(_too_large('the array', f'{array.shape[1]}x{array.shape[0]}'))
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


def video_frames(path: str | Path) -> Iterator[tuple[np.ndarray, float]]:
    """Frames (H, W, 3) uint8 RGB of a video with its frames per second, 25 where it does not say.

    Raises:
        MissingFile: no such file.
        UnreadableFile: it cannot be decoded.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f'there is no video {path.resolve()}')
    cv2 = require('cv2', 'reading videos')
    video = cv2.VideoCapture(str(path))
    try:
        rate = float(video.get(cv2.CAP_PROP_FPS)) or 25.0
        found, frame = video.read()
        if not found:
            raise UnreadableFile(f'{path} cannot be decoded as a video; is it complete? Convert it, e.g. with ffmpeg '
                                 'to H.264 in an .mp4 file, or give its frames as a folder')
        while found:
            yield array_pixels(frame, 'bgr'), rate
            found, frame = video.read()
    finally:
        video.release()
