"""Pictures and videos in files and folders: one list of suffixes, one order, one way to read each."""
from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from frozenmm.compat.dependencies import require
from frozenmm.compat.video_codecs import REMEDY, ffmpeg_frames, has_ffmpeg, opencv_frames
from frozenmm.errors import MissingFile, UnreadableFile, UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.jfif', '.jpe', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif', '.avif')
FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'GIF', 'PPM', 'AVIF', 'HEIF')
"""Pillow's names of the formats that are read."""
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
_HEIF = ('.heic', '.heif')
_FOREIGN = ('.dng', '.cr2', '.cr3', '.nef', '.arw', '.orf', '.raf', '.rw2', '.jp2', '.jxl', '.psd', '.svg', '.eps')
_HEIF_REMEDY = 'pip install pillow-heif'
_SHOWN = 3
"""Names of left-out files in one line of the log."""
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
    found, left_out = sorted_out(folder, below)
    if left_out:
        print_log(f'{folder}: {len(found)} images; left out: ' + '; '.join(
            f'{", ".join(names[:_SHOWN])}{" ..." * (len(names) > _SHOWN)} ({len(names)}: {reason})'
            for reason, names in left_out.items()), logger='current')
    if not found:
        others = ''.join(f'; {len(names)} left out, e.g. {names[0]}: {reason}' for reason, names in left_out.items())
        raise MissingFile(f'the folder {folder.resolve()} holds no image; expected files ending in '
                          f'{", ".join(IMAGE_SUFFIXES)}{others}')
    return sorted(found, key=lambda path: [natural_key(Path(part)) for part in path.relative_to(folder).parts])[::every]


def sorted_out(folder: Path, below: bool = False) -> tuple[list[Path], dict[str, list[str]]]:
    """Images of a folder, and the names of what is left out by reason; hidden files (`._x.jpg`) are no one's images."""
    found: list[Path] = []
    left_out: dict[str, list[str]] = {}
    for path in sorted(folder.rglob('*') if below else folder.iterdir()):
        if any(part.startswith('.') for part in path.relative_to(folder).parts):
            continue
        reason = '' if path.is_dir() and below else _why_left_out(path)
        if reason:
            left_out.setdefault(reason, []).append(str(path.relative_to(folder)) + '/' * path.is_dir())
        elif path.is_file() and (path.suffix.lower() in (*IMAGE_SUFFIXES, *_HEIF)
                                 or not path.suffix and _is_image(path)):
            found.append(path)
    return found, left_out


def _why_left_out(path: Path) -> str:
    """Why a file or folder among images is not read though it may hold some; empty where it is read, or holds none."""
    suffix = path.suffix.lower()
    if path.is_dir():
        inside = any(entry.suffix.lower() in (*IMAGE_SUFFIXES, *_HEIF) for entry in path.iterdir())
        return 'folders with images, which are read when they are named themselves' if inside else ''
    if suffix in _HEIF and not _reads_heif():
        return _HEIF_REMEDY
    if suffix in _FOREIGN:
        return 'no format that is read; convert it to PNG or JPEG'
    return 'a video, which is read when it is named itself' if suffix in VIDEO_SUFFIXES else ''


def _reads_heif() -> bool:
    """Whether Pillow reads HEIC, with the package pillow-heif."""
    if importlib.util.find_spec('pillow_heif') is None:
        return False
    importlib.import_module('pillow_heif').register_heif_opener()
    return True


def _is_image(path: Path) -> bool:
    """Whether a file without suffix is an image by its content."""
    pil = require('PIL.Image', 'reading images')
    try:
        with open_picture(path):
            return True
    except pil.DecompressionBombError:
        return True
    except OSError:  # a file of no format that is read
        return False


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
    if path.suffix.lower() in _HEIF and not _reads_heif():
        raise UnreadableFile(f'{path} is an image of a format (HEIC) that needs another package: {_HEIF_REMEDY}; or '
                             'convert it to JPEG')
    with warnings.catch_warnings():
        # its own limits, which are lower and would not say what to do
        warnings.simplefilter('ignore', pil.DecompressionBombWarning)
        try:
            with open_picture(path) as picture:
                frames = getattr(picture, 'n_frames', 1) if picture.format != 'MPO' else 1
                if frames > 1:
                    print_log(f'{path}: the first of {frames} frames is read; write them as files for all',
                              logger='current')
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
    pil.init()  # what is known beside the commonest formats, HEIF too where its plugin registered itself
    try:
        return pil.open(path, formats=[name for name in FORMATS if name in pil.OPEN])
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
        return array_pixels(_to_bytes(np.asarray(picture, np.float64), name))
    if picture.mode in ('RGBA', 'LA', 'PA') or 'transparency' in picture.info:
        picture = picture.convert('RGBA')
        ground = pil.new('RGBA', picture.size, (255, 255, 255, 255))
        picture = pil.alpha_composite(ground, picture)
    return np.array(picture.convert('RGB'))


def _to_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Gray values of more than 8 bits as 8 bits, from the range that their largest value needs, which is said."""
    known = values[np.isfinite(values)]
    if not known.size or known.min() < 0:
        raise UserError(f'{name} holds values below 0 or none at all, which are no brightness; write it as 8-bit gray')
    most = float(known.max())
    whole = bool((known == known.round()).all())
    ends = (255, 1023, 4095, 16383, 65535, most) if whole and most > 1 else (1, 255, 65535, most)
    end = next(value for value in ends if most <= value)
    if end != 255:
        print_log(f'{name}: gray values up to {most:g} are shown as 0 to {end:g}', logger='current')
    return np.clip(np.nan_to_num(values) * (255 / max(end, 1e-12)), 0, 255).round().astype(np.uint8)


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


def video_frames(path: str | Path, *, every: int = 1) -> Iterator[tuple[np.ndarray, float]]:
    """Frames (H, W, 3) uint8 RGB of a video with its frames per second, 25 where it does not say.

    Args:
        path: the file.
        every: take every n-th frame, from the first on.

    Raises:
        MissingFile: no such file.
        UnreadableFile: it cannot be decoded.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f'there is no video {path.resolve()}')
    for frames in (opencv_frames, ffmpeg_frames) if has_ffmpeg() else (opencv_frames, ):
        count = 0
        for frame, rate in frames(path, every):
            count += 1
            yield array_pixels(frame, 'bgr'), rate
        if count:
            return
    raise UnreadableFile(f'{path} cannot be decoded as a video; is it complete? {"" if has_ffmpeg() else REMEDY + ", "}'
                         'convert it, e.g. with ffmpeg to H.264 in an .mp4 file, or give its frames as a folder')
