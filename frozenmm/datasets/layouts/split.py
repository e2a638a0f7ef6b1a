"""The first layout that a folder of data has."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from frozenmm.datasets.layouts.as_coco import pictures
from frozenmm.datasets.layouts.labelme import labelme_split
from frozenmm.datasets.layouts.pascal_voc import voc_split
from frozenmm.datasets.layouts.yolo import yolo_split
from frozenmm.errors import MissingFile, UserError, reading

Kind = Literal['boxes', 'panoptic', 'semantic', 'masks']
_NAMES = {'train': ('train', 'train2017', 'training'), 'val': ('val', 'valid', 'val2017', 'validation')}
_MAPS = ('labels', 'annotations', 'masks', 'panoptic')
_LOOKED_AT = 20
"""Pictures whose maps are looked for, to learn what these are called."""


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        kind: what its annotations are.
        images: folder of the pictures.
        annotations: a JSON file of COCO's kinds; for label maps their folder.
        maps: folder of panoptic maps.
        map_suffix: what follows a picture's name in that of its label map.
    """

    kind: Kind
    images: Path
    annotations: Path
    maps: Path | None = None
    map_suffix: str = '.png'


Finder = Callable[[Path, str], Split | None]


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
    finders: dict[Kind, tuple[Finder, ...]] = {
        'boxes': (_coco, _roboflow, _voc, _yolo, _labelme), 'panoptic': (_panoptic, ), 'semantic': (_semantic, ),
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
                if images.is_dir() and folder.is_dir():
                    suffix = _map_suffix(images, folder)
                    if suffix:
                        return Split('semantic', images, folder, map_suffix=suffix)
    return None


def _map_suffix(images: Path, maps: Path) -> str:
    """What follows the names of pictures in those of their label maps: `.png`, `_mask.png`, ...; empty for no maps.

    Raises:
        UserError: the maps are JPEG files.
    """
    names = {path.name for path in pictures(maps)}
    if not names:
        return ''
    stems = [path.stem for path in pictures(images)]
    counts = Counter(name[len(stem):] for stem in stems[:_LOOKED_AT] for name in names if name.startswith(stem))
    fitting = {suffix: sum(f'{stem}{suffix}' in names for stem in stems) for suffix, _ in counts.most_common(8)}
    best = max(fitting, key=lambda suffix: (fitting[suffix], suffix == '.png'), default='.png')
    if best.lower().endswith(('.jpg', '.jpeg')):
        raise UserError(f'{maps} holds label maps as JPEG ({next(iter(sorted(names)))}), which changes the numbers of '
                        'their classes; export them as PNG')
    return best


def _voc(root: Path, split: str) -> Split | None:
    found = voc_split(root, split, _NAMES[split])
    return None if found is None else Split('boxes', *found)


def _yolo(root: Path, split: str) -> Split | None:
    found = yolo_split(root, split, _NAMES[split])
    return None if found is None else Split('boxes', *found)


def _labelme(root: Path, split: str) -> Split | None:
    found = labelme_split(root, split, _NAMES[split])
    return None if found is None else Split('boxes', *found)
