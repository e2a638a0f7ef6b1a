"""COCO instance annotations as labelling tools write them: missing keys, zero areas, categories that mean nothing."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozenmm.datasets.annotation_pictures import shown_size
from frozenmm.datasets.checks.coco_values import corners_instead_of_sides, find_pictures, is_box, plain_values
from frozenmm.datasets.checks.findings import Survey
from frozenmm.errors import MissingFile, UnreadableFile, reading

_LEAST_INSIDE = 0.25
"""Boxes of which less is inside the picture are strange."""
_UNREADABLE = ('unknown image', 'no box', 'no outline')
"""Reasons for which readers would stop at an annotation."""


@dataclass(frozen=True)
class BoxReading:
    """How a data set reads an annotation file.

    Attributes:
        file: the annotation file.
        images: the folder of its pictures.
        classes: the names that it shows, in label order; empty for all categories in file order.
        with_masks: whether objects without outline are of no use.
        needed: whether a file without any usable annotation is an error, as it is for training.
    """

    file: Path
    images: Path
    classes: tuple[str, ...] = ()
    with_masks: bool = False
    needed: bool = True


def read_boxes(path: Path, mended: Counter[str] | None = None) -> dict[str, Any]:
    """The content of a COCO instance file, with plain values (`plain_values`).

    Args:
        path: the file.
        mended: takes what was changed -> how often.

    Raises:
        MissingFile: no such file.
        UnreadableFile: no JSON, or not in this format.
    """
    with reading(path, 'a COCO annotation file'):
        text = path.read_bytes()
        mended = Counter() if mended is None else mended
        if json.detect_encoding(text) != 'utf-8':
            mended[f'file is in {json.detect_encoding(text)}; readers expect utf-8'] += 1
        content = json.loads(text)
        content = {'images': [], 'annotations': []} | content
        for key in ('images', 'annotations', 'categories'):
            if not all(isinstance(entry, Mapping) for entry in content[key]):
                raise ValueError(f'its {key} must be a list of objects')
        if any('segments_info' in entry for entry in content['annotations'][:1]):
            raise ValueError('it is a panoptic file; boxes are in instances_*.json')
        plain_values(content, mended)
        return content


def used_categories(content: Mapping[str, Any], used: Counter[int] | None = None) -> list[dict[str, Any]]:
    """The categories that mean something, in file order.

    Left out are a category without annotations whose name another one has too, and one without annotations that all
    others name as their `supercategory`, as exports of Roboflow have it.

    Args:
        content: of an annotation file.
        used: category id -> number of annotations, where more files than this one count.
    """
    used = used or Counter(entry.get('category_id') for entry in content['annotations'])
    categories = [dict(entry, name=str(entry['name'])) for entry in content['categories']]
    kept = []
    for place, entry in enumerate(categories):
        others = [other for other in categories if other is not entry]
        namesakes = [other for other in others if other['name'] == entry['name']]
        # where none of the same name is used, the first one stands for the name
        twin = bool(namesakes) and (any(used[other['id']] for other in namesakes)
                                    or any(other['name'] == entry['name'] for other in categories[:place]))
        root = (entry.get('supercategory') == 'none' and bool(others)
                and all(other.get('supercategory') == entry['name'] for other in others))
        if used[entry['id']] or not (twin or root):
            kept.append(entry)
    return kept


def tidy_boxes(content: dict[str, Any], wanted: BoxReading, survey: Survey, mended: Counter[str] | None = None
               ) -> bool:
    """Give annotations what readers need, and count what they will keep; in place.

    Args:
        content: of the annotation file.
        wanted: how it is read.
        survey: takes the counts and what was found.
        mended: what reading it changed already -> how often.

    Returns:
        Whether anything was changed, then or now.
    """
    mended = Counter() if mended is None else mended
    before = _lists(content)
    survey.images = len(content['images'])
    _tidy_categories(content, wanted, survey)
    renamed = find_pictures(content['images'], wanted.images)
    if renamed:
        mended[f'pictures have other names in {wanted.images} than the file says; they were found'] = renamed
    sizes = _tidy_images(content, wanted, survey)
    labels = {entry['id'] for entry in content['categories'] if not wanted.classes or entry['name'] in wanted.classes}
    kept = []
    for entry in content['annotations']:
        tidy = _tidy_annotation(dict(entry), mended)
        reason = _unusable(tidy, labels, sizes, wanted.with_masks)
        if reason not in _UNREADABLE:
            kept.append(tidy)
        survey.dropped[reason] += 1
    survey.kept += survey.dropped.pop('', 0)
    if len({entry.get('id') for entry in kept}) < len(kept):
        mended['annotations had no id, or that of another one; they are numbered'] = len(kept)
        kept = [dict(entry, id=number) for number, entry in enumerate(kept, 1)]
    for text, count in mended.items():
        survey.note(wanted.file, f'{count} {text}')
    _look_at_boxes(kept, sizes, wanted, survey)
    _look_whether_any_is_left(content, wanted, survey)
    changed = bool(mended) or kept != content['annotations'] or before != _lists(content)
    content['annotations'] = kept
    return changed


def _tidy_categories(content: dict[str, Any], wanted: BoxReading, survey: Survey) -> None:
    """One category a name, in the order of the classes: mmdet numbers labels in the file's order."""
    kept = used_categories(content)
    meant = {entry['id'] for entry in kept}
    for entry in content['categories']:
        if entry['id'] not in meant:
            survey.note(wanted.file, f'category {entry["id"]} {entry["name"]!r} has no annotation and only repeats or '
                                     'groups others; it is no class')
    names = [entry['name'] for entry in kept]
    for name, count in Counter(names).items():
        if count > 1:
            numbers = [entry['id'] for entry in kept if entry['name'] == name]
            survey.fail(wanted.file, f'the categories {numbers} are all called {name!r} and all have annotations',
                        'rename them, or give their annotations one category_id')
    if wanted.classes:
        if not set(names) & set(wanted.classes):
            survey.fail(wanted.file, f'its categories {names[:8]} are none of the classes {list(wanted.classes)[:8]}',
                        'state its names as classes, or give data_root=FOLDER, which takes them from the file')
        absent = [name for name in wanted.classes if name not in names]
        if absent and len(absent) < len(wanted.classes):
            survey.warn(wanted.file, f'it has no category {", ".join(map(repr, absent[:5]))} ({len(absent)} of '
                                     f'{len(wanted.classes)} classes)', 'correct the names if they are misspelt')
        first = max((entry['id'] for entry in content['categories'] if isinstance(entry['id'], int)), default=0) + 1
        kept += [dict(id=number, name=name) for number, name in enumerate(absent, first)]
        order = {name: place for place, name in enumerate(wanted.classes)}
        kept.sort(key=lambda entry: order.get(entry['name'], len(order)))
    if [entry['id'] for entry in kept] != [entry['id'] for entry in content['categories']]:
        content['categories'] = kept


def _tidy_images(content: dict[str, Any], wanted: BoxReading, survey: Survey) -> dict[Any, tuple[float, float]]:
    """Image id -> (width, height), read from the picture where the file does not say."""
    lacking: list[Path] = []
    for entry in content['images']:
        picture = wanted.images / str(entry['file_name'])
        if entry.get('height') and entry.get('width'):
            continue
        try:
            entry['width'], entry['height'] = shown_size(picture)
        except (MissingFile, UnreadableFile):
            lacking.append(picture)
            entry['width'] = entry['height'] = 0
    if lacking:
        survey.fail(lacking[0], f'neither {wanted.file} says the size of this picture nor can it be read '
                                f'({len(lacking)} such pictures)', 'put the pictures there, or state height and width')
    sizes = {entry['id']: (entry['width'], entry['height']) for entry in content['images']}
    if len(sizes) < len(content['images']):
        twice = Counter(entry['id'] for entry in content['images']).most_common(1)[0][0]
        survey.fail(wanted.file, f'several images have the id {twice!r}', 'number the images')
    return sizes


def _tidy_annotation(entry: dict[str, Any], mended: Counter[str]) -> dict[str, Any]:
    box = entry.get('bbox')
    if not is_box(box):
        box = entry['bbox'] = _box_of_outline(entry.get('segmentation'))
    if 'iscrowd' not in entry:
        entry['iscrowd'] = 0
        mended['annotations had no iscrowd; they count as single objects'] += 1
    area = entry.get('area')
    if box is not None and (not isinstance(area, int | float) or area <= 0) and box[2] * box[3] > 0:
        entry['area'] = box[2] * box[3]
        mended['annotations had no area, or 0; it is taken from their boxes'] += 1
    if 'segmentation' in entry and not entry['segmentation']:
        del entry['segmentation']
    return entry


def _look_whether_any_is_left(content: Mapping[str, Any], wanted: BoxReading, survey: Survey) -> None:
    if not survey.kept and wanted.needed:
        reasons = ', '.join(f'{reason} {count}' for reason, count in survey.dropped.items())
        survey.fail(wanted.file, f'no annotation is left of {len(content["annotations"])} ({reasons or "it has none"})',
                    f'look at its boxes, and whether its categories are the classes {list(wanted.classes)[:8]}')
    elif not survey.kept:
        survey.warn(wanted.file, 'no annotation of it can be found again, so its metrics will say nothing',
                    'annotate some of its pictures, or take others')


def _lists(content: Mapping[str, Any]) -> str:
    return json.dumps([content['categories'], content['images']])


def _look_at_boxes(kept: list[dict[str, Any]], sizes: Mapping, wanted: BoxReading, survey: Survey) -> None:
    """Refuse boxes that fit another convention than COCO's and not that one."""
    found = [(entry['bbox'], sizes[entry['image_id']]) for entry in kept if entry['image_id'] in sizes]
    strange = corners_instead_of_sides([box for box, _ in found], [size for _, size in found])
    if strange:
        survey.fail(wanted.file, strange, 'write x, y (the upper left corner), width and height in pixels')
        return
    far = [(box, size) for box, size in found if 0 < _share_inside(box, size) < _LEAST_INSIDE]
    if far:
        box, size = far[0]
        say = survey.fail if len(far) > 1 and 2 * len(far) >= len(found) else survey.warn
        say(wanted.file, f'{len(far)} of {len(found)} boxes lie for the most part outside their pictures, for instance '
                         f'{list(box)} (x, y, width, height) in {size[0]:g}x{size[1]:g} pixels',
            'were the pictures made smaller after they were annotated?')


def _share_inside(box: Sequence[float], size: tuple[float, float]) -> float:
    x, y, width, height = box
    inside = [max(min(start + side, end) - max(start, 0), 0) for start, side, end in ((x, width, size[0]),
                                                                                      (y, height, size[1]))]
    return inside[0] * inside[1] / max(width * height, 1e-9)


def _box_of_outline(outline: object) -> list[float] | None:
    """x, y, width, height around polygons; None where there are none."""
    parts = [part for part in outline if isinstance(part, list) and len(part) >= 6] if isinstance(outline, list) else []
    if not parts:
        return None
    x, y = ([value for part in parts for value in part[start::2]] for start in (0, 1))
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _unusable(entry: dict[str, Any], labels: set, sizes: Mapping, with_masks: bool) -> str:
    """Why training does not use an annotation; empty where it does."""
    if entry.get('category_id') not in labels:
        return 'unknown category'
    if entry.get('image_id') not in sizes:
        return 'unknown image'
    if entry['bbox'] is None:
        return 'no box'
    x, y, width, height = entry['bbox']
    if width < 1 or height < 1:
        return 'size below 1 px'
    across, down = sizes[entry['image_id']]
    if min(x + width, across) <= max(x, 0) or min(y + height, down) <= max(y, 0):
        return 'outside the picture'
    if entry.get('ignore'):
        return 'marked ignore'
    if entry['iscrowd']:
        return 'crowd'
    outline = entry.get('segmentation')
    if with_masks and not (isinstance(outline, dict) or any(len(part) >= 6 for part in outline or ())):
        return 'no outline'
    return ''
