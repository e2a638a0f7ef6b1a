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

from frozenmm.compat import require
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
        FileNotFoundError: no such file.
        ValueError: no JSON, or not in this format (as the instance annotations of COCO are not); the text says where.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no panoptic annotation file {path.resolve()}')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is not valid JSON ({error}); is it truncated?') from None
    missing = {'images', 'annotations', 'categories'} - set(content)
    if missing:
        raise ValueError(f'{path} has no {sorted(missing)}; a COCO panoptic file has images, annotations, categories')
    if content['annotations'] and 'segments_info' not in content['annotations'][0]:
        raise ValueError(f'{path} has annotations without segments_info; is it an instance file (instances_*.json)? '
                         'Give the panoptic one (panoptic_*.json)')
    try:
        return _parse(content)
    except KeyError as error:
        raise ValueError(f'{path}: an entry lacks the key {error}') from None
    except _Reference as error:
        raise ValueError(f'{path}: {error}') from None


class _Reference(ValueError):
    """An entry refers to something that the file does not hold."""


def _parse(content: Mapping) -> PanopticFile:
    categories = tuple(Category(entry['id'], entry['name'], bool(entry['isthing'])) for entry in content['categories'])
    known = {category.id for category in categories}
    entries = {entry['id']: entry for entry in content['images']}
    images = []
    for annotation in content['annotations']:
        entry = entries.get(annotation['image_id'])
        if entry is None:
            raise _Reference(f'an annotation belongs to image {annotation["image_id"]}, which is not among the images')
        segments = tuple(Segment(info['id'], info['category_id'], bool(info.get('iscrowd', 0)), info['area'],
                                 tuple(info['bbox'])) for info in annotation['segments_info'])
        strange = next((segment for segment in segments if segment.category_id not in known), None)
        if strange is not None:
            raise _Reference(f'segment {strange.id} of image {entry["id"]} has the category {strange.category_id}, '
                             'which is not among the categories')
        images.append(PanopticImage(entry['id'], entry['file_name'], entry['height'], entry['width'],
                                    annotation['file_name'], segments))
    return PanopticFile(categories, tuple(sorted(images, key=lambda image: image.id)))


def match_categories(vocabulary: Vocabulary, categories: Sequence[Category]) -> list[Category]:
    """The category of every class of a vocabulary, in the vocabulary's order.

    By name where every class is a category's name, else by id: the packaged vocabularies call things as people do
    ("sky", not "sky-other-merged") and keep the ids.

    Raises:
        ValueError: a class that is no category.
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
    raise ValueError(f'{vocabulary.name} has the class {lacking!r}, which is no category of the annotations, neither '
                     f'by name nor by id; nearest names: {nearest(lacking, list(by_name))}')


def segment_ids(colours: np.ndarray) -> np.ndarray:
    """Segment ids of a COCO panoptic map.

    Args:
        colours: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) int64, R + 256 G + 65536 B.
    """
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return red + 256 * green + 65536 * blue


def segment_colours(ids: np.ndarray) -> np.ndarray:
    """The reverse of `segment_ids`: (H, W, 3) uint8 RGB of ids (H, W).

    Raises:
        ValueError: an id outside 0..2^24-1.
    """
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < 1 << 24:
        raise ValueError(f'segment ids must be in 0..{(1 << 24) - 1}, got {int(ids.min())}..{int(ids.max())}')
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def read_panoptic_map(path: str | Path) -> np.ndarray:
    """(H, W) int64 segment ids of a PNG.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no readable picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no panoptic map {path.resolve()}; is the folder of the maps right?')
    pil = require('PIL.Image', 'panoptic maps')
    try:
        with pil.open(path) as picture:
            return segment_ids(np.asarray(picture.convert('RGB')))
    except OSError as error:
        raise ValueError(f'the panoptic map {path} is no readable picture ({error})') from None
