"""Folders of data as people have them: COCO and its exports, COCO panoptic, Pascal VOC, YOLO, LabelMe, label maps."""
from __future__ import annotations

import hashlib
import json
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from mmengine.logging import print_log

from frozenmm.compat.files import write_whole
from frozenmm.compat.image_files import IMAGE_SUFFIXES, natural_key
from frozenmm.datasets.annotation_pictures import shown_size
from frozenmm.errors import MissingFile, reading
from frozenmm.foundation.weights import weights_folder

Kind = Literal['boxes', 'panoptic', 'semantic', 'masks']
_NAMES = {'train': ('train', 'train2017', 'training'), 'val': ('val', 'valid', 'val2017', 'validation')}
_MAPS = ('labels', 'annotations', 'masks', 'panoptic')


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        kind: what its annotations are.
        images: folder of the pictures.
        annotations: a JSON file of COCO's kinds; for label maps their folder.
        maps: folder of panoptic maps.
    """

    kind: Kind
    images: Path
    annotations: Path
    maps: Path | None = None


def find_split(root: Path, split: str, kinds: Sequence[Kind]) -> Split:
    """The first layout that a folder has, of those that can be used.

    A folder that is not split (`images/` with `instances.json`, `panoptic.json` and `pan/`, or `labels/`) is both.
    Labels of Pascal VOC and YOLO are written as COCO files, into the cache folder (`$FROZENMM_HOME/annotations`).

    Args:
        root: the folder.
        split: `'train'` or `'val'`.
        kinds: of annotations that can be used, the best one first.

    Raises:
        MissingFile: none of these layouts; the text says what was looked for, and what is there instead.
        UnreadableFile: a damaged label file.
    """
    finders = {'boxes': (_coco, _roboflow, _voc, _yolo, _labelme), 'panoptic': (_panoptic, ), 'semantic': (_semantic, ),
               'masks': (_masks, )}
    for kind in kinds:
        for finder in finders[kind]:
            found = finder(root, split)
            if found is not None:
                return found
    others = [kind for kind, parts in finders.items() if kind not in kinds
              and any(finder(root, split) is not None for finder in parts)]
    raise MissingFile(f'{root.resolve()} is not in a layout that this config can train on: no {split} split of '
                      f'{" or ".join(_WANTED[kind] for kind in kinds)} is there' + (
                          f'; it holds {", ".join(_WANTED[kind] for kind in others)}, for which another config is '
                          'needed' if others else '; see docs/data.md'))


_WANTED = {
    'boxes': 'COCO layout (annotations/instances_train.json with images/train/, or instances_train2017.json with '
             'train2017/; exports of CVAT and Label Studio), Roboflow (train/_annotations.coco.json), Pascal VOC '
             '(Annotations/, JPEGImages/, ImageSets/), YOLO (data.yaml, images/, labels/) or LabelMe (x.json beside '
             'x.jpg)',
    'panoptic': 'COCO panoptic layout (annotations/panoptic_train.json, panoptic_train/, images/train/)',
    'semantic': 'label maps (images/train/ with labels/train/*.png)',
    'masks': 'COCO layout, Roboflow, YOLO or LabelMe with outlines'}


def _coco(root: Path, split: str, stem: str = 'instances') -> Split | None:
    for name in _NAMES[split]:
        annotations = root / f'annotations/{stem}_{name}.json'
        images = _first(root, (f'images/{name}', name, 'images'))
        if annotations.is_file() and images is not None:
            return Split('boxes', images, annotations)
    exports = (f'annotations/{stem}_default.json', 'result.json') if stem == 'instances' else ()  # CVAT, Label Studio
    whole = _first(root, (f'{stem}.json', f'annotations/{stem}.json', *exports))
    if whole is None:
        return None
    with reading(whole, 'a COCO annotation file'):
        name = str(json.loads(whole.read_bytes())['images'][0]['file_name'])
    images = next((folder for folder in (root / 'images', root / 'images/default', root)
                   if (folder / name).is_file()), None)
    return None if images is None else Split('boxes', images, whole)


def _first(root: Path, names: Sequence[str]) -> Path | None:
    """The first of these that is there."""
    return next((root / name for name in names if (root / name).exists()), None)


def _panoptic(root: Path, split: str) -> Split | None:
    found = _coco(root, split, 'panoptic')
    if found is None:
        return None
    name = found.annotations.stem
    maps = _first(root, (name, f'annotations/{name}', 'pan'))
    return None if maps is None else Split('panoptic', found.images, found.annotations, maps)


def _roboflow(root: Path, split: str) -> Split | None:
    for name in _NAMES[split]:
        if (root / name / '_annotations.coco.json').is_file():
            return Split('boxes', root / name, root / name / '_annotations.coco.json')
    return None


def _masks(root: Path, split: str) -> Split | None:
    """Boxes whose annotations have an outline too."""
    for finder in (_coco, _roboflow, _yolo, _labelme):
        found = finder(root, split)
        if found is None:
            continue
        with reading(found.annotations, 'a COCO annotation file'):
            annotations = json.loads(found.annotations.read_bytes())['annotations']
            outlined = any(annotation.get('segmentation') for annotation in annotations)
        if outlined:
            return replace(found, kind='masks')
    return None


def _semantic(root: Path, split: str) -> Split | None:
    for name in (*_NAMES[split], ''):
        for images, maps in ((root / 'images' / name, [root / folder / name for folder in _MAPS]),
                             (root / name / 'images', [root / name / folder for folder in _MAPS])):
            for folder in maps:
                if images.is_dir() and folder.is_dir() and any(folder.glob('*.png')):
                    return Split('semantic', images, folder)
    return None


def _voc(root: Path, split: str) -> Split | None:
    lists = _first(root, ('ImageSets/Main', 'ImageSets'))
    if lists is None or not (root / 'Annotations').is_dir():
        return None
    listed = _first(lists, [f'{name}.txt' for name in _NAMES[split]])
    if listed is None:
        return None
    with reading(listed, 'a list of names, one per line'):
        # lists of single classes have a second column
        names = [line.split()[0] for line in listed.read_text(encoding='utf-8').splitlines() if line.strip()]
    entries = [_voc_image(root / 'Annotations' / f'{name}.xml') for name in names]
    everything = (_voc_image(path) for path in sorted((root / 'Annotations').glob('*.xml')))
    classes = sorted({found.name for _, objects in everything for found in objects})
    return Split('boxes', root / 'JPEGImages', _as_coco(root, split, entries, classes))


@dataclass(frozen=True)
class _Object:
    """A name with a box (x, y, w, h), whether to ignore it, and its outline (x1, y1, x2, y2, ...) if it has one."""

    name: str
    box: Sequence[float]
    ignore: int = 0
    outline: Sequence[float] = ()

    @classmethod
    def of_outline(cls, name: str, outline: Sequence[float]) -> _Object:
        """What lies in an outline."""
        x1, x2, y1, y2 = min(outline[::2]), max(outline[::2]), min(outline[1::2]), max(outline[1::2])
        return cls(name, [x1, y1, x2 - x1, y2 - y1], outline=outline)


_Image = tuple[dict[str, Any], list[_Object]]
"""An image entry of COCO, and the objects in it."""


def _voc_image(path: Path) -> _Image:
    with reading(path, 'annotations of Pascal VOC'):
        tree = ElementTree.parse(path).getroot()
        size = tree.find('size')
        name = Path(str(tree.findtext('filename') or path.stem))
        # the file name inside is often that of another folder or without its ending
        image: dict[str, Any] = dict(file_name=name.name if name.suffix else f'{path.stem}.jpg')
        if size is not None:
            image |= {key: int(float(size.findtext(key) or 0)) for key in ('width', 'height')}
        objects = []
        for entry in tree.iter('object'):
            corners = [float(entry.findtext(f'bndbox/{key}') or '') for key in ('xmin', 'ymin', 'xmax', 'ymax')]
            x1, y1, x2, y2 = corners
            # corners count from 1 and belong to the box
            box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1] if x2 > x1 and y2 > y1 else [x1 - 1, y1 - 1, 0, 0]
            objects.append(_Object(str(entry.findtext('name')), box, int(entry.findtext('difficult') or 0)))
        return image, objects


def _yolo(root: Path, split: str) -> Split | None:
    stated = next((path for path in (root / 'data.yaml', root / 'dataset.yaml', *sorted(root.glob('*.yaml')))
                   if path.is_file()), None)
    if stated is None:
        return None
    with reading(stated, 'a description of YOLO data (names: [...])'):
        names = yaml.safe_load(stated.read_text(encoding='utf-8'))['names']
        classes = [str(names[key]) for key in (sorted(names) if isinstance(names, dict) else range(len(names)))]
    for name in _NAMES[split]:
        for images, labels in ((root / 'images' / name, root / 'labels' / name),
                               (root / name / 'images', root / name / 'labels')):
            if images.is_dir() and labels.is_dir():
                entries = [_yolo_image(path, labels / f'{path.stem}.txt', classes) for path in _pictures(images)]
                return Split('boxes', images, _as_coco(root, split, entries, classes))
    return None


def _pictures(folder: Path) -> Iterator[Path]:
    yield from sorted((path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
                       and not path.name.startswith('.')), key=natural_key)


def _yolo_image(picture: Path, labels: Path, classes: Sequence[str]) -> _Image:
    width, height = shown_size(picture)
    objects = []
    with reading(labels, 'labels of YOLO (class x y w h, in shares of the picture)'):
        lines = labels.read_text(encoding='utf-8').splitlines() if labels.is_file() else []  # none: nothing is in it
        for line in filter(None, map(str.strip, lines)):
            label, *numbers = line.split()
            values = [float(value) for value in numbers]
            if not 0 <= int(label) < len(classes):
                raise ValueError(f'the class {label} is none of the {len(classes)} names')
            name = classes[int(label)]
            pixels = [value * (width, height)[place % 2] for place, value in enumerate(values)]
            if len(values) > 4:
                objects.append(_Object.of_outline(name, pixels))
            else:
                x, y, w, h = pixels
                objects.append(_Object(name, [x - w / 2, y - h / 2, w, h]))
    return dict(file_name=picture.name, width=width, height=height), objects


def _labelme(root: Path, split: str) -> Split | None:
    """A JSON file beside every picture; folders for the splits, or one for both."""
    for name in (*_NAMES[split], *(f'images/{name}' for name in _NAMES[split]), 'images', ''):
        folder = root / name
        pictures = [path for path in (_pictures(folder) if folder.is_dir() else ())
                    if path.with_suffix('.json').is_file()]
        if pictures:
            entries = [_labelme_image(path) for path in pictures]
            classes = sorted({found.name for _, objects in entries for found in objects})
            return Split('boxes', folder, _as_coco(root, split, entries, classes))
    return None


def _labelme_image(picture: Path) -> _Image:
    width, height = shown_size(picture)
    labels = picture.with_suffix('.json')
    objects = []
    with reading(labels, 'labels of LabelMe (a JSON file with "shapes")'):
        for shape in json.loads(labels.read_bytes())['shapes']:
            points, kind = [(float(x), float(y)) for x, y in shape['points']], shape.get('shape_type') or 'polygon'
            if kind == 'rectangle':
                (x1, y1), (x2, y2) = points
                points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
            elif kind != 'polygon' or len(points) < 3:
                print_log(f'{labels}: the {kind} {shape["label"]!r} is neither a polygon nor a rectangle; it is left '
                          'out', logger='current', level=logging.WARNING)
                continue
            objects.append(_Object.of_outline(str(shape['label']), [value for point in points for value in point]))
    return dict(file_name=picture.name, width=width, height=height), objects


def _as_coco(root: Path, split: str, entries: Sequence[_Image], classes: Sequence[str]) -> Path:
    """Write labels as a COCO file into the cache folder; the same labels give the same file."""
    numbers = {name: number for number, name in enumerate(classes, 1)}
    annotations = [dict(image_id=index, category_id=numbers[found.name], bbox=list(found.box), iscrowd=0,
                        area=found.box[2] * found.box[3], ignore=found.ignore,
                        **(dict(segmentation=[list(found.outline)]) if found.outline else {}))
                   for index, (_, objects) in enumerate(entries) for found in objects]
    content = dict(images=[dict(entry, id=index) for index, (entry, _) in enumerate(entries)],
                   annotations=[dict(entry, id=number) for number, entry in enumerate(annotations, 1)],
                   categories=[dict(id=number, name=name) for name, number in numbers.items()])
    text = json.dumps(content)
    key = hashlib.sha256(f'{root.resolve()}{text}'.encode()).hexdigest()[:8]
    path = weights_folder().parent / 'annotations' / f'{root.resolve().name}-{key}' / f'instances_{split}.json'
    if not path.is_file():
        write_whole(path, text)
    return path
