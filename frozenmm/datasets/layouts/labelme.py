"""Folders in the layout of LabelMe: a JSON file beside every picture."""
from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frozenmm.datasets.annotation_pictures import shown_size
from frozenmm.datasets.layouts.as_coco import Labelled, LabelledImage, pictures, write_coco
from frozenmm.errors import reading

_CORNERS = 32
"""Of the outline of a circle."""


def labelme_split(root: Path, split: str, names: Sequence[str]) -> tuple[Path, Path] | None:
    """Folder of the pictures and a COCO file of a split: a folder for it, by any of some names, or one for both."""
    for name in (*names, *(f'images/{name}' for name in names), 'images', ''):
        folder = root / name
        labelled = [path for path in (pictures(folder) if folder.is_dir() else ())
                    if path.with_suffix('.json').is_file()]
        if labelled:
            dropped = Counter[str]()
            entries = [_image(path, dropped) for path in labelled]
            classes = sorted({found.name for _, objects in entries for found in objects})
            return folder, write_coco(root, split, entries, classes, dropped=dropped)
    return None


def _image(picture: Path, dropped: Counter[str]) -> LabelledImage:
    width, height = shown_size(picture)
    labels = picture.with_suffix('.json')
    objects = []
    with reading(labels, 'labels of LabelMe (a JSON file with "shapes")'):
        for shape in json.loads(labels.read_text(encoding='utf-8-sig'))['shapes']:
            outline = _outline(shape)
            if outline:
                corners = [value for point in outline for value in point]
                objects.append(Labelled.of_outline(str(shape['label']), corners))
            else:
                dropped[f'{shape.get("shape_type") or "polygon"} without an area'] += 1
    return dict(file_name=picture.name, width=width, height=height), objects


def _outline(shape: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Corners of a polygon, rectangle or circle; none for points, lines and masks."""
    points, kind = [(float(x), float(y)) for x, y in shape['points']], shape.get('shape_type') or 'polygon'
    if kind == 'rectangle':
        (x1, y1), (x2, y2) = points
        return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    if kind == 'circle':  # its centre, and a point on it
        (x, y), beside = points
        radius = math.dist((x, y), beside)
        turns = [2 * math.pi * corner / _CORNERS for corner in range(_CORNERS)]
        return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    return points if kind == 'polygon' and len(points) > 2 else []
