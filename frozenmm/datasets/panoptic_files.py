"""COCO panoptic annotations: JSON with categories and segments, one PNG per image. No panopticapi, no pycocotools.

Source: Kirillov et al., "Panoptic Segmentation", CVPR 2019, and the file format on COCO's site: a pixel's segment id is
R + 256 G + 65536 B, and 0 is void.
"""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.errors import UserError, reading
from frozenmm.foundation.lookup import nearest
from frozenmm.foundation.vocabulary import Vocabulary

VOID = 0


@dataclass(frozen=True)
class Category:
    """A class of an annotation file."""

    id: int
    name: str
    isthing: bool


@dataclass(frozen=True)
class Segment:
    """A region of one image.

    Attributes:
        id: its value in the map.
        category_id: of its `Category`.
        is_crowd: several objects that were not told apart.
        area: in pixels.
        bbox: x, y, width, height in pixels.
    """

    id: int
    category_id: int
    is_crowd: bool
    area: int
    bbox: tuple[float, float, float, float]


@dataclass(frozen=True)
class PanopticImage:
    """One image of an annotation file.

    Attributes:
        id, file_name, height, width: of the image.
        map_name: file name of the PNG.
        segments: its regions.
    """

    id: int
    file_name: str
    height: int
    width: int
    map_name: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class PanopticFile:
    """A whole annotation file: categories in file order, annotated images in the order of their ids."""

    categories: tuple[Category, ...]
    images: tuple[PanopticImage, ...]


def read_panoptic_file(path: str | Path) -> PanopticFile:
    """Read a COCO panoptic annotation file.

    Raises:
        MissingFile: no such file.
        UnreadableFile: no JSON, or not in this format (as the instance annotations of COCO are not); the text says why.
    """
    with reading(path, 'a COCO panoptic annotation file', 'give the panoptic one (panoptic_*.json), whole'):
        content = json.loads(Path(path).read_text(encoding='utf-8'))
        missing = {'images', 'annotations', 'categories'} - set(content)
        if missing:
            raise ValueError(f'it has no {sorted(missing)}')
        if content['annotations'] and 'segments_info' not in content['annotations'][0]:
            raise ValueError('its annotations have no segments_info, as those of an instance file (instances_*.json)')
        return _parse(content)


def _parse(content: Mapping) -> PanopticFile:
    categories = tuple(Category(_whole(entry, 'id'), str(entry['name']), bool(entry['isthing']))
                       for entry in content['categories'])
    known = {category.id for category in categories}
    entries = {entry['id']: entry for entry in content['images']}
    images = []
    for annotation in content['annotations']:
        entry = entries.get(annotation['image_id'])
        if entry is None:
            raise ValueError(f'an annotation belongs to image {annotation["image_id"]}, which is not among the images')
        segments = tuple(Segment(_whole(info, 'id'), _whole(info, 'category_id'), bool(info.get('iscrowd', 0)),
                                 _whole(info, 'area'), _box(info['bbox'])) for info in annotation['segments_info'])
        strange = next((segment for segment in segments if segment.category_id not in known), None)
        if strange is not None:
            raise ValueError(f'segment {strange.id} of image {entry["id"]} has the category {strange.category_id}, '
                             'which is not among the categories')
        images.append(PanopticImage(entry['id'], str(entry['file_name']), _whole(entry, 'height'),
                                    _whole(entry, 'width'), str(annotation['file_name']), segments))
    return PanopticFile(categories, tuple(sorted(images, key=lambda image: image.id)))


def _whole(entry: Mapping, key: str) -> int:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f'{key} must be a whole number, got {value!r}')
    return int(value)


def _box(value: object) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(part, int | float) for part in value):
        raise ValueError(f'bbox must be x, y, width and height, got {value!r}')
    return value[0], value[1], value[2], value[3]


def match_categories(vocabulary: Vocabulary, categories: Sequence[Category]) -> list[Category]:
    """The category of every class of a vocabulary, in the vocabulary's order.

    By name where every class is a category's name, else by id: the packaged vocabularies call things as people do
    ("sky", not "sky-other-merged") and keep the ids.

    Raises:
        UserError: a class that is no category.
    """
    by_name = {category.name: category for category in categories}
    by_id = {category.id: category for category in categories}
    if all(name in by_name for name in vocabulary.names):
        return [by_name[name] for name in vocabulary.names]
    # a plain list of words is numbered from 0, which means nothing unless it names every category
    stated = vocabulary.ids != list(range(len(vocabulary))) or len(vocabulary) == len(categories)
    if stated and all(number in by_id for number in vocabulary.ids):
        return [by_id[number] for number in vocabulary.ids]
    lacking = next(name for name in vocabulary.names if name not in by_name)
    raise UserError(f'{vocabulary.name} has the class {lacking!r}, which is no category of the annotations, neither '
                     f'by name nor by id; nearest names: {nearest(lacking, list(by_name))}')


def segment_ids(colours: np.ndarray) -> np.ndarray:
    """Segment ids of a COCO panoptic map.

    Args:
        colours: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) int64, R + 256 G + 65536 B.

    >>> segment_ids(np.array([[[3, 2, 1], [255, 0, 0]]], np.uint8)).tolist()
    [[66051, 255]]
    """
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return red + 256 * green + 65536 * blue


def segment_colours(ids: np.ndarray) -> np.ndarray:
    """The reverse of `segment_ids`: (H, W, 3) uint8 RGB of ids (H, W).

    Raises:
        ValueError: an id outside 0..2^24-1.

    >>> segment_colours(np.array([[66051, 255]])).tolist()
    [[[3, 2, 1], [255, 0, 0]]]
    """
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < 1 << 24:
        raise ValueError(f'segment ids must be in 0..{(1 << 24) - 1}, got {int(ids.min())}..{int(ids.max())}')
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def read_panoptic_map(path: str | Path) -> np.ndarray:
    """(H, W) int64 segment ids of a PNG.

    Raises:
        MissingFile: no such file.
        UnreadableFile: no readable picture.
    """
    return segment_ids(read_picture(Path(path), mode='RGB', kind='a panoptic map'))
