"""COCO panoptic annotations: JSON with categories and segments, one PNG per image. No panopticapi, no pycocotools.

Source: Kirillov et al., "Panoptic Segmentation", CVPR 2019, and the file format on COCO's site: a pixel's segment id is
R + 256 G + 65536 B, and 0 is void.
"""
from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from frozenmm.datasets.annotation_pictures import VOID_8BIT, VOID_16BIT, read_picture
from frozenmm.errors import UnreadableFile, UserError, reading
from frozenmm.foundation.lookup import nearest
from frozenmm.foundation.vocabulary import Vocabulary

VOID = 0


@dataclass(frozen=True)
class Category:
    """A class of an annotation file; `isthing` is None where the file does not say."""

    id: int
    name: str
    isthing: bool | None


@dataclass(frozen=True)
class Segment:
    """A region of one image.

    Attributes:
        id: its value in the map.
        category_id: of its `Category`.
        is_crowd: several objects that were not told apart.
        area: in pixels, of its box where the file does not say.
        bbox: x, y, width, height in pixels; zeros where the file does not say.
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
        id, file_name, height, width: of the image; a size of 0 is not stated.
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
    categories = tuple(Category(_whole(entry, 'id'), str(entry['name']), _flag(entry))
                       for entry in content['categories'])
    known = {category.id for category in categories}
    entries = {entry['id']: entry for entry in content['images']}
    images = []
    for annotation in content['annotations']:
        entry = entries.get(annotation['image_id'])
        if entry is None:
            raise ValueError(f'an annotation belongs to image {annotation["image_id"]}, which is not among the images')
        segments = tuple(map(_segment, annotation['segments_info']))
        strange = next((segment for segment in segments if segment.category_id not in known), None)
        if strange is not None:
            raise ValueError(f'segment {strange.id} of image {entry["id"]} has the category {strange.category_id}, '
                             'which is not among the categories')
        images.append(PanopticImage(entry['id'], str(entry['file_name']), _whole(entry, 'height', 0),
                                    _whole(entry, 'width', 0), str(annotation['file_name']), segments))
    return PanopticFile(_distinct(categories, images), tuple(sorted(images, key=lambda image: image.id)))


def _segment(info: Mapping) -> Segment:
    box = _box(info.get('bbox') or [0, 0, 0, 0])
    # an area of 0 is what tools write that do not measure it: whether there are pixels, the map says
    area = _whole(info, 'area', 0) or math.ceil(box[2] * box[3])
    return Segment(_whole(info, 'id'), _whole(info, 'category_id'), bool(info.get('iscrowd', 0)), area, box)


def _flag(entry: Mapping) -> bool | None:
    value = entry.get('isthing')
    if value not in (None, 0, 1):
        raise ValueError(f'isthing of the category {entry["name"]!r} must be 0 or 1, got {value!r}')
    return None if value is None else bool(value)


def _distinct(categories: Sequence[Category], images: Sequence[PanopticImage]) -> tuple[Category, ...]:
    """Without categories that have no segment and the name of another one."""
    names = Counter(category.name for category in categories)
    if max(names.values(), default=1) == 1:
        return tuple(categories)
    used = {segment.category_id for image in images for segment in image.segments}
    kept = [category for category in categories if names[category.name] == 1 or category.id in used]
    # where none of the same name is used, the first one stands for the name
    first = {category.name: category for category in reversed(categories)}
    kept += [category for category in categories
             if category is first[category.name] and category.name not in {other.name for other in kept}]
    twice = next((name for name, count in Counter(category.name for category in kept).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f'the categories {[entry.id for entry in kept if entry.name == twice]} are all called '
                         f'{twice!r} and all have segments')
    return tuple(sorted(kept, key=categories.index))


def _whole(entry: Mapping, key: str, default: int | None = None) -> int:
    value = entry[key] if default is None else entry.get(key, default)
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
    ("sky", not "sky-other-merged") and keep the ids. What neither says to be a thing or stuff is a thing.

    Raises:
        UserError: a class that is no category, or that is a thing in one of both and stuff in the other.
    """
    found = _matched(vocabulary, categories)
    for entry, category in zip(vocabulary, found):
        if None not in (entry.isthing, category.isthing) and entry.isthing != category.isthing:
            raise UserError(f'{vocabulary.name} says that {entry.name!r} is {_kind(entry.isthing)}, but the annotation '
                            f'file says that its category {category.name!r} is {_kind(category.isthing)} (isthing = '
                            f'{int(bool(category.isthing))}); correct one of them')
    flags = [entry.isthing if category.isthing is None else category.isthing
             for entry, category in zip(vocabulary, found)]
    return [replace(category, isthing=flag is not False) for category, flag in zip(found, flags)]


def _kind(isthing: bool | None) -> str:
    return 'a thing' if isthing else 'stuff'


def _matched(vocabulary: Vocabulary, categories: Sequence[Category]) -> list[Category]:
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


def read_panoptic_map(path: str | Path, listed: Collection[int] = ()) -> np.ndarray:
    """(H, W) int64 segment ids of a PNG.

    Args:
        path: the file. A map of one channel (gray of 8 or 16 bits, palette) holds ids as its values, or as its colours
            where only these are listed.
        listed: ids that the annotations give for it; empty where they are not known, so that the colours count.

    Raises:
        MissingFile: no such file.
        UnreadableFile: no readable picture, or none of the listed ids is in it.
    """
    stored = read_picture(Path(path), kind='a panoptic map')
    colours = segment_ids(stored if stored.shape[2:] == (3, ) else read_picture(Path(path), mode='RGB'))
    if not listed:
        return colours
    wanted = set(listed)
    if stored.ndim == 2:
        values = stored.astype(np.int64)
        void = {VOID, VOID_8BIT if stored.dtype == np.uint8 else VOID_16BIT}
        for ids in (values, colours):
            present = set(np.unique(ids).tolist())
            if present & wanted and present <= wanted | void:
                return ids
    elif not colours.any() or wanted & set(np.unique(colours).tolist()):
        return colours
    shape = 'one channel' if stored.ndim == 2 else f'{stored.shape[2]} channels'
    found = np.unique(stored if stored.ndim == 2 else colours)[:6].tolist()
    raise UnreadableFile(f'{path} ({shape}, {stored.dtype}) does not hold the segments that the annotations list for '
                         f'it: listed {sorted(wanted)[:6]}, found {found}; write ids as R + 256 G + 65536 B, or as '
                         'gray values of 8 or 16 bits')
