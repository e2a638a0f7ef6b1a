"""Folders in the layout of YOLO: `data.yaml`, and a text file of boxes or outlines for every picture."""
from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import yaml

from frozenmm.datasets.annotation_pictures import shown_size
from frozenmm.datasets.layouts.as_coco import Labelled, LabelledImage, pictures, write_coco
from frozenmm.errors import reading

_LARGEST = 1.5
"""A share of the picture's side beyond this is no share; outlines may reach a little out of the picture."""


def yolo_split(root: Path, split: str, names: Sequence[str]) -> tuple[Path, Path] | None:
    """Folder of the pictures and a COCO file of a split, which may be called by any of some names."""
    stated = next((path for path in (root / 'data.yaml', root / 'dataset.yaml', *sorted(root.glob('*.yaml')))
                   if path.is_file()), None)
    if stated is None:
        return None
    with reading(stated, 'a description of YOLO data (names: [...])'):
        classes = _classes(yaml.safe_load(stated.read_text(encoding='utf-8-sig')))
    for name in names:
        for images, labels in ((root / 'images' / name, root / 'labels' / name),
                               (root / name / 'images', root / name / 'labels')):
            if images.is_dir() and labels.is_dir():
                entries = [_image(path, labels / f'{path.stem}.txt', classes) for path in pictures(images)]
                return images, write_coco(root, split, entries, classes)
    return None


def _classes(description: dict) -> list[str]:
    names = description['names']
    classes = [str(names[key]) for key in (sorted(names, key=int) if isinstance(names, dict) else range(len(names)))]
    if 'nc' in description and int(description['nc']) != len(classes):
        raise ValueError(f'it says nc: {description["nc"]}, but names {len(classes)} classes {classes[:8]}; correct '
                         'one of the two')
    if isinstance(names, dict) and sorted(map(int, names)) != list(range(len(names))):
        raise ValueError(f'its names have the numbers {sorted(map(int, names))}; labels need 0 to {len(names) - 1}')
    return classes


def _image(picture: Path, labels: Path, classes: Sequence[str]) -> LabelledImage:
    width, height = shown_size(picture)
    with reading(labels, 'labels of YOLO (class x y w h, in shares of the picture)'):
        lines = labels.read_text(encoding='utf-8-sig').splitlines() if labels.is_file() else []  # none: it is empty
        objects = [_object(line, number, classes, (width, height)) for number, line in enumerate(lines, 1)
                   if line.strip()]
    return dict(file_name=picture.name, width=width, height=height), objects


def _object(line: str, number: int, classes: Sequence[str], size: tuple[int, int]) -> Labelled:
    """A line: class and box, perhaps with a score behind it, or class and corners of an outline."""
    try:
        label, *shares = map(float, line.split())
    except ValueError:
        raise ValueError(f'line {number} is {line.strip()[:60]!r}; numbers with blanks between them are expected'
                         ) from None
    if label != int(label) or not 0 <= label < len(classes):
        raise ValueError(f'in line {number} the class {label:g} is none of the {len(classes)} names')
    if len(shares) == 5:
        shares = shares[:4]  # a prediction's score
    if len(shares) < 4 or len(shares) % 2:
        raise ValueError(f'line {number} has {len(shares)} numbers after the class; 4 are a box, 6 or more an outline')
    wrong = next((share for share in shares if not math.isfinite(share) or abs(share) > _LARGEST), None)
    if wrong is not None:
        raise ValueError(f'line {number} holds {wrong:g}, but places and sides are shares of the picture, 0 to 1; '
                         'divide pixels by its width and height')
    pixels = [share * size[place % 2] for place, share in enumerate(shares)]
    name = classes[int(label)]
    if len(pixels) > 4:
        return Labelled.of_outline(name, pixels)
    x, y, w, h = pixels
    return Labelled(name, [x - w / 2, y - h / 2, w, h])
