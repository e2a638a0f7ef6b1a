"""ADE20K with 847 classes: the full annotation of the 2021 release, as semantic label maps."""
from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.datasets.prepare.annotations import AnnotatedImage, write_label_maps
from frozenmm.datasets.prepare.sources import SourceFile
from frozenmm.datasets.progress import Progress
from frozenmm.errors import MissingFile
from frozenmm.foundation.vocabulary import Vocabulary

FOLDERS = {'train': 'training', 'val': 'validation'}
SHORT_SIDE = 512
FILES = (
    SourceFile('ADE20K_2021_17_01*.zip', 'several GB; rename your personal download to ADE20K_2021_17_01.zip',
               'https://groups.csail.mit.edu/vision/datasets/ADE20K/', ('images/ADE', ), into='..'), )


def convert(folder: Path, split: str) -> None:
    """Write `images_512/<split>/*.jpg` and `labels_847/<split>/*.png` (16 bits, 65535 for void).

    As in the published evaluations, the short side of pictures and maps is at most 512 pixels.

    Raises:
        MissingFile: no pictures.
    """
    vocabulary = Vocabulary.named('ade20k_847')
    source = folder / 'images' / 'ADE' / FOLDERS[split]
    paths = sorted(source.rglob(f'ADE_{split}_*.jpg'))
    if not paths:
        raise MissingFile(f'{source.absolute()} holds no ADE_{split}_*.jpg; is the archive unpacked completely?')
    images = [AnnotatedImage(path.stem, path, path.name, (path.with_name(f'{path.stem}_seg.png'), )) for path in paths]
    pictures = folder / 'images_512' / split
    progress = Progress(len(images))
    for image in images:
        _write_picture(image.image, pictures / image.file_name)
        progress.add(1, 'images_512')
    indices = np.full(max(vocabulary.ids) + 1, -1)
    indices[vocabulary.ids] = np.arange(len(vocabulary))

    def labels(image: AnnotatedImage) -> np.ndarray:
        classes = object_classes(read_picture(image.annotations[0], mode='RGB'))
        return _shrunk(indices[np.where(classes < len(indices), classes, 0)], nearest=True)

    write_label_maps(images, labels, folder / 'labels_847' / split, num_classes=len(vocabulary))


def object_classes(colours: np.ndarray) -> np.ndarray:
    """Class numbers (H, W) of a `_seg.png` (H, W, 3): red // 10 * 256 + green, 0 for nothing."""
    red, green = colours[..., 0].astype(np.int64), colours[..., 1].astype(np.int64)
    return red // 10 * 256 + green


def _write_picture(source: Path, target: Path) -> None:
    if target.is_file():
        return
    pil = require('PIL.Image', 'resizing pictures')
    pixels = read_picture(source, mode='RGB')
    buffer = io.BytesIO()
    if min(pixels.shape[:2]) <= SHORT_SIDE:
        write_whole(target, source.read_bytes())
        return
    pil.fromarray(_shrunk(pixels, nearest=False)).save(buffer, 'JPEG', quality=95)
    write_whole(target, buffer.getvalue())


def _shrunk(pixels: np.ndarray, *, nearest: bool) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3) with a short side of at most 512."""
    height, width = pixels.shape[:2]
    if min(height, width) <= SHORT_SIDE:
        return pixels
    cv2 = require('cv2', 'resizing label maps')
    if width >= height:
        size = (round(width / height * SHORT_SIDE), SHORT_SIDE)
    else:
        size = (SHORT_SIDE, round(height / width * SHORT_SIDE))
    if nearest:
        return cv2.resize(pixels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
