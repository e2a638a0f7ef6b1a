"""Annotation files in COCO's formats, and label maps: written image by image, so that a stopped job can go on."""
from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_files import open_picture
from frozenmm.datasets.annotation_pictures import VOID_8BIT, VOID_16BIT
from frozenmm.datasets.panoptic_files import segment_colours
from frozenmm.datasets.progress import Progress
from frozenmm.errors import UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and the files that annotate it.

    Attributes:
        id: its name in annotation files, and that of its map.
        image: the picture.
        file_name: how annotation files call the picture: its path below the image folder.
        annotations: the publisher's files.
        number: what annotation files call it instead of `id`, where they count.
    """

    id: str
    image: Path
    file_name: str
    annotations: tuple[Path, ...]
    number: int | None = None

    @property
    def listed_as(self) -> str | int:
        """Its name in annotation files."""
        return self.id if self.number is None else self.number


@dataclass(frozen=True)
class Segments:
    """The segments of an image.

    Attributes:
        ids: (H, W) integers; those that `classes` does not list are void.
        classes: segment id (1..2^24-1) -> category id.
        crowds: ids of segments that hold several objects.
    """

    ids: np.ndarray
    classes: Mapping[int, int]
    crowds: frozenset[int] = frozenset()


Reader = Callable[[AnnotatedImage], Segments]
Found = TypeVar('Found')


def write_panoptic_set(images: Sequence[AnnotatedImage], read: Reader, *, json_path: Path, map_folder: Path,
                       vocabulary: Vocabulary) -> None:
    """Write COCO panoptic annotations: `json_path`, and one PNG per image in `map_folder`.

    Args:
        images: all images.
        read: gives the segments of an image.
        json_path: a complete file of these images stays as it is.
        map_folder: gets `<id>.png`.
        vocabulary: the classes, with ids and `isthing`.
    """
    def entry(image: AnnotatedImage) -> dict[str, Any]:
        segments = _read(read, image)
        values, boxes, areas = _regions(segments)
        known = np.isin(segments.ids, values) if values else np.zeros(segments.ids.shape, bool)
        write_whole(map_folder / f'{image.id}.png', _png(segment_colours(np.where(known, segments.ids, 0))))
        infos = [dict(id=value, category_id=segments.classes[value], iscrowd=int(value in segments.crowds), area=area,
                      bbox=box) for value, box, area in zip(values, boxes, areas)]
        return dict(_image_entry(image, segments.ids),
                    annotation=dict(image_id=image.listed_as, file_name=f'{image.id}.png', segments_info=infos))

    def content(entries: list[dict]) -> dict[str, Any]:
        return dict(images=[entry['image'] for entry in entries],
                    annotations=[entry['annotation'] for entry in entries], categories=categories(vocabulary))

    _write_set(images, entry, content, json_path, done=lambda image: (map_folder / f'{image.id}.png').is_file())


def write_instance_set(images: Sequence[AnnotatedImage], read: Reader, *, json_path: Path, vocabulary: Vocabulary
                       ) -> None:
    """Write COCO instance annotations with run-length masks; arguments as `write_panoptic_set`."""
    encode = require('pycocotools.mask', 'COCO run lengths').encode
    things = {entry.id for entry in vocabulary if entry.isthing}

    def entry(image: AnnotatedImage) -> dict[str, Any]:
        segments = _read(read, image)
        found = []
        for value, box, area in zip(*_regions(segments)):
            if segments.classes[value] in things:
                run = encode(np.asfortranarray(segments.ids == value))
                found.append(dict(image_id=image.listed_as, category_id=segments.classes[value], area=area, bbox=box,
                                  iscrowd=int(value in segments.crowds),
                                  segmentation=dict(size=list(run['size']), counts=run['counts'].decode())))
        return dict(_image_entry(image, segments.ids), annotations=found)

    def content(entries: list[dict]) -> dict[str, Any]:
        annotations = [found for entry in entries for found in entry['annotations']]
        return dict(images=[entry['image'] for entry in entries],
                    annotations=[dict(id=number, **found) for number, found in enumerate(annotations, start=1)],
                    categories=[entry for entry in categories(vocabulary) if entry['id'] in things])

    _write_set(images, entry, content, json_path)


def write_label_maps(images: Sequence[AnnotatedImage], read: Callable[[AnnotatedImage], np.ndarray], folder: Path, *,
                     num_classes: int) -> None:
    """Write one label map per image, `<id>.png`; files that are there stay.

    Args:
        images: all images.
        read: gives the labels (H, W) of an image; values outside 0..K-1 are void.
        folder: of the maps: 8 bits with 255 for void, or 16 bits with 65535 where there are more than 255 classes.
        num_classes: K.
    """
    kind, void = (np.uint8, VOID_8BIT) if num_classes <= VOID_8BIT else (np.uint16, VOID_16BIT)
    progress = Progress(len(images))
    for image in images:
        path = folder / f'{image.id}.png'
        if not path.is_file():
            labels = _read(read, image).astype(np.int64)
            write_whole(path, _png(np.where((labels >= 0) & (labels < num_classes), labels, void).astype(kind)))
        progress.add(1, folder.name)


def categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The classes as COCO's files list them."""
    return [dict(id=entry.id, name=entry.name, isthing=int(bool(entry.isthing))) for entry in vocabulary]


def check_size(image: AnnotatedImage, annotation: np.ndarray) -> None:
    """ValueError if an annotation (H, W, ...) has another size than its picture, or the picture cannot be read."""
    with reading(image.image, 'a picture', 'unpack its archive again'), open_picture(image.image) as picture:
        width, height = picture.size
    if annotation.shape[:2] != (height, width):
        raise UserError(f'{image.annotations[0]} has {annotation.shape[1]}x{annotation.shape[0]} pixels, but '
                         f'{image.image} has {width}x{height}; do both belong together?')


def _read(read: Callable[[AnnotatedImage], Found], image: AnnotatedImage) -> Found:
    """What a publisher's file holds; a failure to understand it is the file's."""
    with reading(image.annotations[-1], 'an annotation of this data set', 'unpack its archive again'):
        return read(image)


def _regions(segments: Segments) -> tuple[list[int], list[list[int]], list[int]]:
    """Ids, boxes (x, y, width, height) and areas of the listed segments that have any pixel."""
    present, places = np.unique(segments.ids, return_inverse=True)
    places = places.reshape(segments.ids.shape)
    areas = np.bincount(places.reshape(-1), minlength=len(present))
    slices = require('scipy.ndimage', 'boxes of segments').find_objects(places + 1)
    values, boxes, sizes = [], [], []
    for value, area, (rows, columns) in zip(present.tolist(), areas.tolist(), slices):
        if value in segments.classes:
            values.append(value)
            boxes.append([columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start])
            sizes.append(area)
    return values, boxes, sizes


def _image_entry(image: AnnotatedImage, ids: np.ndarray) -> dict[str, Any]:
    check_size(image, ids)
    return dict(image=dict(id=image.listed_as, file_name=image.file_name, height=ids.shape[0], width=ids.shape[1]))


def _write_set(images: Sequence[AnnotatedImage], entry: Callable[[AnnotatedImage], dict],
               content: Callable[[list[dict]], dict], json_path: Path, *,
               done: Callable[[AnnotatedImage], bool] = lambda image: True) -> None:
    """Make the entry of every image, keeping them in a journal beside the file until all are there."""
    if json_path.is_file():
        _check_complete(json_path, images)
        return
    json_path.parent.mkdir(parents=True, exist_ok=True)
    journal = json_path.with_name(f'.{json_path.name}.journal')
    entries = _read_journal(journal)
    progress = Progress(len(images))
    with journal.open('a', encoding='utf-8') as file:
        for image in images:
            key = str(image.listed_as)
            if key not in entries or not done(image):
                entries[key] = entry(image)
                file.write(json.dumps(entries[key]) + '\n')
                file.flush()
            progress.add(1, json_path.name)
    write_whole(json_path, json.dumps(content([entries[str(image.listed_as)] for image in images])).encode())
    journal.unlink()


def _read_journal(path: Path) -> dict[str, dict]:
    """Entries of an interrupted job by image id; an unfinished last line does not count and is cut off."""
    if not path.is_file():
        return {}
    whole, _, _ = path.read_text(encoding='utf-8').rpartition('\n')
    write_whole(path, f'{whole}\n'.encode() if whole else b'')
    with reading(path, 'the journal of an interrupted job', 'delete it and run the same command again'):
        entries = [json.loads(line) for line in whole.splitlines()]
        return {str(entry['image']['id']): entry for entry in entries}


def _check_complete(json_path: Path, images: Sequence[AnnotatedImage]) -> None:
    with reading(json_path, 'a COCO annotation file', 'delete it and run the same command again'):
        listed = {str(entry['id']) for entry in json.loads(json_path.read_text(encoding='utf-8'))['images']}
    lacking = [image.id for image in images if str(image.listed_as) not in listed]
    if lacking:
        raise UserError(f'{json_path} lacks {len(lacking)} of {len(images)} images, e.g. {lacking[0]}; it was made of '
                         'other data. Delete it and run the same command again')


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    require('PIL.Image', 'writing annotation maps').fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()
