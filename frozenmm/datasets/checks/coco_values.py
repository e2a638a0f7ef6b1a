"""Values in COCO instance files of labelling tools: numbers as text, blanks in names, paths of another machine."""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

_LOOKED_AT = 50
"""Pictures that are looked for before all of them are."""


def plain_values(content: dict[str, Any], mended: Counter[str]) -> None:
    """Give ids, flags, sizes and names the types that readers expect; in place.

    Args:
        content: of an annotation file.
        mended: what was changed -> how often.

    Raises:
        ValueError: there are no categories, or one has no name.
    """
    if not content['categories']:
        raise ValueError('it lists no categories')
    for entry in content['categories']:
        if entry['name'] is None or not str(entry['name']).strip():
            raise ValueError(f'its category {entry.get("id")} has no name')
        name = ' '.join(str(entry['name']).split())
        if name != entry['name']:
            entry['name'] = name
            mended['category names had blanks around them, or were numbers'] += 1
    ids = (content['images'], 'id'), (content['annotations'], 'image_id')
    categories = (content['categories'], 'id'), (content['annotations'], 'category_id')
    for places in ids, categories:
        mended['ids were numbers written as text'] += _convert(places, _whole)
    mended['flags (iscrowd, ignore) were text'] += _convert(
        [(content['annotations'], 'iscrowd'), (content['annotations'], 'ignore')], _flag)
    mended['sizes of pictures were text'] += _convert(
        [(content['images'], 'width'), (content['images'], 'height')], _whole)
    for empty in [text for text, count in mended.items() if not count]:
        del mended[empty]


def _convert(places: Sequence[tuple[list[dict[str, Any]], str]], convert: Callable[[str], int | None]) -> int:
    """Convert text under a key, if all of it is understood: half-converted ids would no longer meet."""
    found = [(entry, key, entry[key]) for entries, key in places for entry in entries
             if isinstance(entry.get(key), str)]
    values = [convert(text) for _, _, text in found]
    if None in values:
        return 0
    for (entry, key, _), value in zip(found, values):
        entry[key] = value
    return len(found)


def _whole(text: str) -> int | None:
    """The whole number that a text is, written as programs write it; `007` is a name."""
    return int(text) if text.isdecimal() and str(int(text)) == text else None


def _flag(text: str) -> int | None:
    return {'0': 0, '1': 1, 'false': 0, 'true': 1, '': 0}.get(text.strip().lower())


def is_box(value: object) -> bool:
    """Whether a value is four finite numbers."""
    return isinstance(value, Sequence) and len(value) == 4 and all(
        isinstance(part, int | float) and not isinstance(part, bool) and math.isfinite(part) for part in value)


def corners_instead_of_sides(boxes: Sequence[Sequence[float]], sizes: Sequence[tuple[float, float]]) -> str:
    """What makes boxes look like (x1, y1, x2, y2), or like shares of the picture's size; empty if nothing does.

    Args:
        boxes: meant as x, y, width, height in pixels.
        sizes: (width, height) of each box's picture.
    """
    if boxes and all(0 <= value <= 1.5 for box in boxes for value in box):
        return 'all boxes lie within 0..1 as shares of the picture\'s size do, and pixels are needed'
    beyond = [number for number, (box, size) in enumerate(zip(boxes, sizes))
              if box[0] + box[2] > size[0] + 2 or box[1] + box[3] > size[1] + 2]
    if 5 * len(beyond) < len(boxes) or not beyond or not all(
            box[0] < box[2] <= size[0] + 1 and box[1] < box[3] <= size[1] + 1 for box, size in zip(boxes, sizes)):
        return ''
    box, size = boxes[beyond[0]], sizes[beyond[0]]
    return (f'{len(beyond)} of {len(boxes)} boxes reach beyond their pictures as x, y, width, height (for instance '
            f'{list(box)} in {size[0]:g}x{size[1]:g} pixels), and all fit as x1, y1, x2, y2')


def find_pictures(images: Sequence[dict[str, Any]], folder: Path) -> int:
    """Where pictures are not under their stated names, take those that the names must mean; in place.

    They are looked for without the folders of another machine, with the other slash, without `%20` and the like, and
    with the letters in another case. Nothing is changed where two names would mean one picture.

    Args:
        images: entries with `file_name`.
        folder: of the pictures.

    Returns:
        How many names were changed.
    """
    looked_at = images[::max(1, len(images) // _LOOKED_AT)]
    if not folder.is_dir() or all((folder / str(entry['file_name'])).is_file() for entry in looked_at):
        return 0
    listed = {path.relative_to(folder).as_posix().lower(): path.relative_to(folder).as_posix()
              for path in folder.rglob('*') if path.is_file()}
    found = {}
    for place, entry in enumerate(images):
        name = str(entry['file_name'])
        if not (folder / name).is_file():
            meant = next((listed[other] for other in _other_names(name) if other in listed), None)
            if meant is not None:
                found[place] = meant
    names = [found.get(place, str(entry['file_name'])) for place, entry in enumerate(images)]
    if len(set(names)) < len(names):
        return 0
    for place, name in found.items():
        images[place]['file_name'] = name
    return len(found)


def _other_names(name: str) -> Iterator[str]:
    """Whole path first, then without its first folder, ..., the bare name last; in small letters."""
    for text in dict.fromkeys((name.replace('\\', '/'), unquote(name.replace('\\', '/')))):
        parts = PurePosixPath(text).parts
        for start in range(len(parts)):
            yield '/'.join(parts[start:]).lower()
