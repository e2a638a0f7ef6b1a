"""Results in COCO's formats: entries of result files, panoptic annotations, ids of pictures and categories."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from frozenmm.apis.found import Found
from frozenmm.compat import require
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass

Id = int | str


def coco_entry(one: Found, image_id: Id | None, classes: Sequence[VocabularyClass]) -> dict[str, Any]:
    """An entry of COCO's result format: box as x, y, width, height, mask as run lengths; no score where there is none.

    Args:
        one: what was found.
        image_id: of the picture; None leaves it out.
        classes: what labels index.
    """
    x1, y1, x2, y2 = one.box
    entry: dict[str, Any] = {} if image_id is None else dict(image_id=image_id)
    entry |= dict(category_id=classes[one.label].id, category=classes[one.label].name, bbox=[x1, y1, x2 - x1, y2 - y1])
    if one.score is not None:
        entry['score'] = one.score
    if one.track is not None:
        entry['track_id'] = one.track
    if one.mask is not None:
        run = require('pycocotools.mask', 'COCO run lengths').encode(np.asfortranarray(one.mask, np.uint8))
        entry['segmentation'] = dict(size=[int(side) for side in run['size']], counts=run['counts'].decode())
    return entry


def coco_annotation(entry: Mapping[str, Any], number: int) -> dict[str, Any]:
    """An entry of `coco_entry` as an annotation of COCO's instance format, which labelling tools and data sets read.

    Args:
        entry: with `bbox` and, for a mask, its run lengths.
        number: id of the annotation, from 1 on.
    """
    width, height = entry['bbox'][2:]
    area = float(width * height)
    if 'segmentation' in entry:
        area = float(require('pycocotools.mask', 'COCO run lengths').area(entry['segmentation']))
    shape = dict(segmentation=[]) if 'segmentation' not in entry else {}
    return dict(id=number, iscrowd=0, area=area) | shape | dict(entry)


def panoptic_annotation(found: Sequence[Found], image_id: Id, map_name: str,
                        classes: Sequence[VocabularyClass]) -> dict[str, Any]:
    """An entry of COCO's panoptic format, with the scores of the segments."""
    segments = []
    for one in found:
        x1, y1, x2, y2 = map(int, one.box)
        info: dict[str, Any] = dict(id=one.id, category_id=classes[one.label].id, isthing=int(one.isthing), iscrowd=0,
                                    area=int(one.size), bbox=[x1, y1, x2 - x1, y2 - y1], score=one.score)
        segments.append(info if one.track is None else info | dict(track_id=one.track))
    return dict(image_id=image_id, file_name=map_name, segments_info=segments)


def coco_categories(classes: Sequence[VocabularyClass]) -> list[dict[str, Any]]:
    """`categories` of a COCO file; what nobody says to be stuff is a thing."""
    return [dict(id=entry.id, name=entry.name, supercategory=entry.name, isthing=int(entry.isthing is not False))
            for entry in classes]


@dataclass(frozen=True)
class AnnotationIds:
    """The ids that a COCO annotation file gives to pictures and categories.

    Attributes:
        path: the file.
        images: file name -> id.
        categories: name -> id.
    """

    path: Path
    images: Mapping[str, Id]
    categories: Mapping[str, int]

    @classmethod
    def read(cls, path: str | Path) -> AnnotationIds:
        """Those of an instance, panoptic or any other COCO file with `images` and `categories`.

        Raises:
            MissingFile: no such file.
            UnreadableFile: another kind of file.
        """
        with reading(path, 'a COCO annotation file'):
            content = json.loads(Path(path).read_text(encoding='utf-8'))
            images = {str(entry['file_name']): entry['id'] for entry in content['images']}
            categories = {str(entry['name']): int(entry['id']) for entry in content.get('categories', ())}
        return cls(Path(path), images, categories)

    def image_id(self, image: NamedImage) -> tuple[Id, str]:
        """Id and file name of a picture, by as much of its path as the annotation file states.

        Raises:
            UserError: it is not in the file, or the name is there several times.
        """
        parts = PurePath(image.path).parts
        names = ['/'.join(parts[start:]) for start in range(len(parts))]
        found = [name for name in names if name in self.images][:1]
        if not found and parts:
            found = [name for name in self.images if PurePath(name).name == parts[-1]]
        if len(found) != 1:
            what = f'{len(found)} pictures of this name' if found else 'no such picture'
            raise UserError(f'{image.path or image.name}: {what} in {self.path}; give the annotation file of these '
                            'pictures, or none')
        return self.images[found[0]], found[0]

    def applied(self, classes: Sequence[VocabularyClass]) -> tuple[VocabularyClass, ...]:
        """The classes with the ids of their categories; those of other names keep ids that no category has."""
        return with_ids(classes, self.categories)


def with_ids(classes: Sequence[VocabularyClass], ids: Mapping[str, int]) -> tuple[VocabularyClass, ...]:
    """Classes with stated category ids, all others with ids of their own.

    Classes whose ids are the data's keep them, whatever their names: packaged vocabularies call things as people do.

    >>> [entry.id for entry in with_ids([VocabularyClass('cat'), VocabularyClass('cup')], {'cat': 17})]
    [17, 18]
    """
    own = [index if entry.id is None else entry.id for index, entry in enumerate(classes)]
    stated = own != list(range(len(classes)))  # a plain list of words is numbered, which means nothing
    named = [(number, ids[entry.name]) for number, entry in zip(own, classes) if entry.name in ids]
    if stated and all(number == other for number, other in named) and (named or set(own) <= set(ids.values())):
        return tuple(replace(entry, id=number) for entry, number in zip(classes, own))
    free = count(max(ids.values(), default=-1) + 1)
    return tuple(replace(entry, id=ids[entry.name] if entry.name in ids else next(free)) for entry in classes)


def named_classes(names: Sequence[str], least: int = 0, ids: Mapping[str, int] | None = None
                  ) -> tuple[VocabularyClass, ...]:
    """Classes of a closed set.

    Args:
        names: class names.
        least: number of classes at least; those without a name are called by their label.
        ids: category ids by name; those of COCO for the names of COCO's 80 things, else the labels.
    """
    names = [*names, *(f'class {label}' for label in range(len(names), least))]
    classes = tuple(VocabularyClass(name, id=label) for label, name in enumerate(names))
    if ids is None and set(names) == set(_coco_things()):
        ids = _coco_things()
    return classes if ids is None else with_ids(classes, ids)


@cache
def _coco_things() -> dict[str, int]:
    return {entry.name: entry.id or 0 for entry in Vocabulary.named('coco_panoptic_133') if entry.isthing}
