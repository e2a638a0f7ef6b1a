"""Labels of other tools as a COCO file in the cache folder, which says where they come from and what it lacks."""
from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozenmm.compat.files import write_whole
from frozenmm.compat.image_files import IMAGE_SUFFIXES, natural_key
from frozenmm.errors import UnreadableFile
from frozenmm.foundation.weights import weights_folder

_ORIGIN = 'made_from'
_LEFT_OUT = 'left_out'


@dataclass(frozen=True)
class Labelled:
    """A name with a box (x, y, w, h), whether to ignore it, and its outline (x1, y1, x2, y2, ...) if it has one."""

    name: str
    box: Sequence[float]
    ignore: int = 0
    outline: Sequence[float] = ()

    @classmethod
    def of_outline(cls, name: str, outline: Sequence[float]) -> Labelled:
        """What lies in an outline."""
        x1, x2, y1, y2 = min(outline[::2]), max(outline[::2]), min(outline[1::2]), max(outline[1::2])
        return cls(name, [x1, y1, x2 - x1, y2 - y1], outline=outline)


LabelledImage = tuple[dict[str, Any], list[Labelled]]
"""An image entry of COCO, and the objects in it."""


def pictures(folder: Path) -> Iterator[Path]:
    """The pictures of a folder in the order of their numbers, without hidden files."""
    yield from sorted((path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
                       and not path.name.startswith('.')), key=natural_key)


def write_coco(root: Path, split: str, entries: Sequence[LabelledImage], classes: Sequence[str], *,
               dropped: Mapping[str, int] | None = None) -> Path:
    """Write labels as a COCO file; the same labels give the same file.

    Args:
        root: the folder that they come from.
        split: `'train'` or `'val'`.
        entries: pictures with what is in them.
        classes: names in label order.
        dropped: what such a file cannot say -> how often.

    Raises:
        UnreadableFile: there is no class at all.
    """
    if not classes:
        reasons = ', '.join(f'{count} {reason}' for reason, count in (dropped or {}).items())
        raise UnreadableFile(f'{root} names no object in {len(entries)} pictures'
                             + (f' (left out: {reasons})' if reasons else '') + '; label some of its pictures first')
    numbers = {name: number for number, name in enumerate(classes, 1)}
    annotations = [dict(image_id=index, category_id=numbers[found.name], bbox=list(found.box), iscrowd=0,
                        area=found.box[2] * found.box[3], ignore=found.ignore,
                        **(dict(segmentation=[list(found.outline)]) if found.outline else {}))
                   for index, (_, objects) in enumerate(entries) for found in objects]
    content = dict(info={_ORIGIN: str(root), _LEFT_OUT: dict(dropped or {})},
                   images=[dict(entry, id=index) for index, (entry, _) in enumerate(entries)],
                   annotations=[dict(entry, id=number) for number, entry in enumerate(annotations, 1)],
                   categories=[dict(id=number, name=name) for name, number in numbers.items()])
    text = json.dumps(content)
    key = hashlib.sha256(f'{root.resolve()}{text}'.encode()).hexdigest()[:8]
    path = weights_folder().parent / 'annotations' / f'{root.resolve().name}-{key}' / f'instances_{split}.json'
    if not path.is_file():
        write_whole(path, text)
    return path


def origin(content: Mapping[str, Any], path: Path) -> Path:
    """The folder that a file of `write_coco` was made from; the file itself where it is the user's own."""
    info = content.get('info')
    return Path(info[_ORIGIN]) if isinstance(info, Mapping) and _ORIGIN in info else path


def left_out(content: Mapping[str, Any]) -> Counter[str]:
    """What a file of `write_coco` lacks -> how often."""
    info = content.get('info')
    return Counter(info[_LEFT_OUT] if isinstance(info, Mapping) and _ORIGIN in info else {})
