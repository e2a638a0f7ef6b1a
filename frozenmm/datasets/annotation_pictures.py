"""Pictures whose pixels are numbers: label, instance and segment maps."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from frozenmm.compat.image_files import open_picture
from frozenmm.errors import UserError, reading

EXIF_TURN = 274
VOID_8BIT, VOID_16BIT = 255, 65535
"""Pixels without annotation in label maps of at most 255 classes, and of more."""


def read_picture(path: Path, *, mode: str = '', kind: str = 'a picture') -> np.ndarray:
    """The pixels of a picture as they are stored (palette indices of a palette picture), or in another mode of Pillow.

    Args:
        path: the file.
        mode: of Pillow, e.g. `'RGB'`; empty for what the file has.
        kind: what the file should be, for the error.

    Returns:
        (H, W), or (H, W, C) with several channels; of the file's type.

    Raises:
        MissingFile: no such file.
        UnreadableFile: no picture, or a damaged one.
    """
    with reading(path, kind, 'is its archive unpacked completely?'), open_picture(Path(path)) as picture:
        return np.asarray(picture.convert(mode) if mode else picture)


def shown_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture as readers show it: turned as its EXIF entry says.

    Raises:
        MissingFile: no such file.
        UnreadableFile: no picture.
    """
    width, height = stored_size(path)[:2]
    return (height, width) if stored_size(path)[2] in (5, 6, 7, 8) else (width, height)


def stored_size(path: Path) -> tuple[int, int, int]:
    """Width, height and EXIF turn (1 to 8, 1 for none) of a picture's file, without decoding it.

    Raises: as `shown_size`.
    """
    with reading(path, 'a picture'), open_picture(Path(path)) as picture:
        return picture.width, picture.height, int(picture.getexif().get(EXIF_TURN, 1))


def check_same_size(sample: Mapping, shape: Sequence[int]) -> None:
    """Compare the sizes of a map, of its picture, and of what the annotation file says.

    Args:
        sample: with `img_path`, and where they are known `height` and `width` (annotation file) and `ori_shape`.
        shape: (height, width) of the map.

    Raises:
        UserError: they differ; the text names the file, all sizes and the EXIF turn.
    """
    width, height, turn = stored_size(Path(sample['img_path']))
    shown = (height, width) if turn < 5 else (width, height)
    stated = (sample.get('height') or shown[0], sample.get('width') or shown[1])
    if tuple(shape) == stated == shown:
        return
    turned = (f'; its EXIF entry turns it (orientation {turn}) and the annotations belong to the picture before the '
              'turn: remove the entry, or write the picture turned and annotate that' if turn > 1 else
              '; do picture and annotation belong together?')
    label_map = sample.get('seg_map_path')
    of_map = f'its map {label_map} {shape[1]}x{shape[0]}, and ' if label_map else ''
    raise UserError(f'{sample["img_path"]} has {shown[1]}x{shown[0]} pixels as shown and {width}x{height} as stored, '
                    f'{of_map}the annotation file says {stated[1]}x{stated[0]}{turned}')
