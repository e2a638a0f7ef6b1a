"""Results in COCO's formats: entries of result files, panoptic annotations, ids of pictures and categories."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from frozenmm.apis.found import Found
from frozenmm.compat import require
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass

Id = int | str


def coco_entry(one: Found, image_id: Id, classes: Sequence[VocabularyClass]) -> dict[str, Any]:
    """An entry of COCO's result format: box as x, y, width, height, mask as run lengths; no score where there is none.

    Args:
        one: what was found.
        image_id: of the picture.
        classes: what labels index.
    """
    x1, y1, x2, y2 = one.box
    entry: dict[str, Any] = dict(image_id=image_id, category_id=classes[one.label].id, category=classes[one.label].name,
                                 bbox=[x1, y1, x2 - x1, y2 - y1])
    if one.score is not None:
        entry['score'] = one.score
    if one.track is not None:
        entry['track_id'] = one.track
    if one.mask is not None:
        run = require('pycocotools.mask', 'COCO run lengths').encode(np.asfortranarray(one.mask, np.uint8))
        entry['segmentation'] = dict(size=[int(side) for side in run['size']], counts=run['counts'].decode())
    return entry


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

    Where no name is stated but every id of the classes is, these are the data's already: packaged vocabularies call
    things as people do and keep the ids.

    >>> [entry.id for entry in with_ids([VocabularyClass('cat'), VocabularyClass('cup')], {'cat': 17})]
    [17, 18]
    """
    taken = set(ids.values())
    own = [index if entry.id is None else entry.id for index, entry in enumerate(classes)]
    unknown = [entry.name for entry in classes if entry.name not in ids]
    if unknown and own != list(range(len(classes))) and set(own) <= taken:
        return tuple(replace(entry, id=number) for entry, number in zip(classes, own))
    free = iter(range(max(taken, default=-1) + 1, max(taken, default=-1) + 1 + len(unknown)))
    return tuple(replace(entry, id=ids[entry.name] if entry.name in ids else next(free)) for entry in classes)


def named_classes(names: Sequence[str], count: int = 0, ids: Mapping[str, int] | None = None,
                  palette: Sequence[Sequence[int]] = ()) -> tuple[VocabularyClass, ...]:
    """Classes of a closed set.

    Args:
        names: class names.
        count: of classes at least; those without a name are called by their label.
        ids: category ids by name; those of COCO for the names of COCO's 80 things, else the labels.
        palette: RGB per class, where there is one.
    """
    names = [*names, *(f'class {label}' for label in range(len(names), count))]
    colours = [(int(red), int(green), int(blue)) for red, green, blue in palette]
    classes = [VocabularyClass(name, id=label, color=colours[label] if label < len(colours) else None)
               for label, name in enumerate(names)]
    if ids is None:
        coco = {entry.name: entry.id or 0 for entry in Vocabulary.named('coco_panoptic_133') if entry.isthing}
        ids = coco if len(names) == len(coco) and set(names) == set(coco) else None
    return tuple(classes) if ids is None else with_ids(classes, ids)
