"""coco_mini: 138 pictures of COCO 2017 by number, at most 512 pixels long, with the annotations of that size.

Pictures that may not be changed (NoDerivs) are not among them. The instances are the visible parts of the panoptic
annotations' things, not COCO's own outlines: no two overlap.
"""
from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_files import open_picture
from frozenmm.datasets.panoptic_files import PanopticImage, read_panoptic_file, read_panoptic_map
from frozenmm.datasets.prepare import coco
from frozenmm.datasets.prepare.annotations import AnnotatedImage, Segments, write_instance_set, write_panoptic_set
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary

LONGEST = 512
"""Pixels of a picture's longest side."""
_JPEG_QUALITY = 85
_LIST = Path(__file__).with_name('coco_mini.json')
FILES = tuple(replace(file, gives=('../coco/annotations/panoptic_{split}2017.json', ), into='../coco')
              for file in coco.FILES if file.name.startswith('panoptic_'))


def addresses(folder: Path, split: str) -> dict[Path, str]:
    """The pictures of a split that lie neither here nor among those of a whole COCO: path -> address."""
    names = [f'{number:012d}.jpg' for number in json.loads(_LIST.read_text(encoding='utf-8'))[split]]
    return {folder / 'original' / split / name: f'{coco.HOST}/{split}2017/{name}' for name in names
            if not (folder / 'images' / split / name).is_file()
            and not (folder.parent / 'coco' / f'{split}2017' / name).is_file()}


def convert(folder: Path, split: str) -> None:
    """Write pictures, panoptic maps and both annotation files of a split.

    Raises:
        UserError: COCO's annotation file lacks one of the pictures.
        MissingFile: neither the maps nor the archive that they come in are there.
    """
    numbers = json.loads(_LIST.read_text(encoding='utf-8'))[split]
    source = folder.parent / 'coco' / 'annotations' / f'panoptic_{split}2017.json'
    listed = {image.id: image for image in read_panoptic_file(source).images}
    lacking = [number for number in numbers if number not in listed]
    if lacking:
        raise UserError(f'{source} lacks {len(lacking)} of {len(numbers)} pictures, e.g. {lacking[0]}; is it the file '
                        'of COCO 2017?')
    maps = _original_maps(folder, split, [listed[number] for number in numbers])
    images = [_resized(folder, split, listed[number], maps[number]) for number in numbers]
    vocabulary = Vocabulary.named('coco_panoptic_133')

    def read(image: AnnotatedImage) -> Segments:
        with open_picture(image.image) as picture:
            size = picture.size
        segments = listed[int(image.id)].segments
        ids = _nearest(read_panoptic_map(image.annotations[0], [segment.id for segment in segments]), size)
        return Segments(ids, {segment.id: segment.category_id for segment in segments},
                        frozenset(segment.id for segment in segments if segment.is_crowd))

    write_panoptic_set(images, read, json_path=folder / 'annotations' / f'panoptic_{split}.json',
                       map_folder=folder / f'panoptic_{split}', vocabulary=vocabulary)
    write_instance_set(images, read, json_path=folder / 'annotations' / f'instances_{split}.json',
                       vocabulary=vocabulary)


def _original_maps(folder: Path, split: str, images: list[PanopticImage]) -> Mapping[int, Path]:
    """The maps of a whole COCO, or taken out of the archive inside its archive."""
    annotations = folder.parent / 'coco' / 'annotations'
    unpacked, own = annotations / f'panoptic_{split}2017', folder / 'original' / f'panoptic_{split}'
    found = {image.id: next((place / image.map_name for place in (own, unpacked)
                             if (place / image.map_name).is_file()), None) for image in images}
    archive = unpacked.with_suffix('.zip')
    if None in found.values() and not archive.is_file():
        raise MissingFile(f'{archive} is missing; delete {annotations} and run the same command again')
    if None in found.values():
        with reading(archive, "COCO's archive of panoptic maps", 'delete it and run the same command again'), \
                zipfile.ZipFile(archive) as content:
            for image in images:
                if found[image.id] is None:
                    write_whole(own / image.map_name, content.read(f'{unpacked.name}/{image.map_name}'))
    return {number: path or own / f'{number:012d}.png' for number, path in found.items()}


def _resized(folder: Path, split: str, image: PanopticImage, annotation: Path) -> AnnotatedImage:
    """The picture at its new size, written once."""
    target = folder / 'images' / split / image.file_name
    if not target.is_file():
        pil = require('PIL.Image', 'making pictures smaller')
        folders = (folder / 'original' / split, folder.parent / 'coco' / f'{split}2017')
        path = next(place / image.file_name for place in folders if (place / image.file_name).is_file())
        with reading(path, 'a picture', 'delete it and run the same command again'), open_picture(path) as picture:
            scale = min(1.0, LONGEST / max(picture.size))
            small = picture.convert('RGB').resize([max(1, round(side * scale)) for side in picture.size],
                                                  pil.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, 'JPEG', quality=_JPEG_QUALITY)
        write_whole(target, buffer.getvalue())
    return AnnotatedImage(f'{image.id:012d}', target, image.file_name, (annotation, ), number=image.id)


def _nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pil = require('PIL.Image', 'making maps smaller')
    return np.asarray(pil.fromarray(ids.astype(np.int32)).resize(size, pil.Resampling.NEAREST)).astype(np.int64)
