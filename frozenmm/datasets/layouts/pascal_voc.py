"""Folders in the layout of PASCAL VOC: `Annotations/*.xml`, `JPEGImages/`, lists in `ImageSets/Main/`."""
from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from frozenmm.datasets.layouts.as_coco import Labelled, LabelledImage, pictures, write_coco
from frozenmm.errors import UserError, reading


def voc_split(root: Path, split: str, names: Sequence[str]) -> tuple[Path, Path] | None:
    """Folder of the pictures and a COCO file of a split, which its list may call by any of some names.

    Raises:
        UserError: everything but the lists is there.
    """
    annotations, images = root / 'Annotations', root / 'JPEGImages'
    if not annotations.is_dir() or not images.is_dir() or next(annotations.glob('*.xml'), None) is None:
        return None
    lists = next((path for path in (root / 'ImageSets/Main', root / 'ImageSets') if path.is_dir()), None)
    listed = None if lists is None else next((lists / f'{name}.txt' for name in names
                                              if (lists / f'{name}.txt').is_file()), None)
    if listed is None and lists is None:
        raise UserError(f'{root} has Annotations/ and JPEGImages/ of Pascal VOC, but no ImageSets/Main/train.txt and '
                        'val.txt that say which pictures are for training: one name without ending a line')
    if listed is None:
        return None
    with reading(listed, 'a list of names, one per line'):
        # lists of single classes have a second column; some tools write paths
        stems = [PureWindowsPath(line.split()[0]).name for line in listed.read_text(encoding='utf-8-sig').splitlines()
                 if line.strip()]
    files = [annotations / f'{stem}.xml' for stem in stems]
    files = [path if path.is_file() else path.with_name(f'{Path(stem).stem}.xml') for path, stem in zip(files, stems)]
    there = {path.stem: path.name for path in pictures(images)}
    entries = [_image(path, there) for path in files]
    everything = (_image(path, there) for path in sorted(annotations.glob('*.xml')))
    classes = sorted({found.name for _, objects in everything for found in objects})
    return images, write_coco(root, split, entries, classes)


def _image(path: Path, there: Mapping[str, str]) -> LabelledImage:
    """An XML file; `there`: stem -> name of the pictures in their folder."""
    with reading(path, 'annotations of Pascal VOC'):
        tree = ElementTree.parse(path).getroot()
        size = tree.find('size')
        # the name inside is often that of another folder, or without its ending
        stated = PureWindowsPath(str(tree.findtext('filename') or path.stem))
        known = stated.name if stated.name in there.values() else there.get(path.stem, there.get(stated.stem))
        image: dict[str, Any] = dict(file_name=known or (stated.name if stated.suffix else f'{path.stem}.jpg'))
        if size is not None:
            image |= {key: int(float(size.findtext(key) or 0)) for key in ('width', 'height')}
        return image, [_object(entry) for entry in tree.iter('object')]


def _object(entry: ElementTree.Element) -> Labelled:
    name = ' '.join((entry.findtext('name') or '').split())
    if not name:
        raise ValueError('an object has no name')
    x1, y1, x2, y2 = (float(entry.findtext(f'bndbox/{key}') or '') for key in ('xmin', 'ymin', 'xmax', 'ymax'))
    x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    # corners count from 1 and belong to the box
    box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1] if x2 > x1 and y2 > y1 else [x1 - 1, y1 - 1, 0, 0]
    return Labelled(name, box, int(entry.findtext('difficult') or 0))
