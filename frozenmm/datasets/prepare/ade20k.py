"""ADE20K with 150 classes (the scene parsing challenge): panoptic and instance annotations out of its maps."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.datasets.prepare.annotations import (
    AnnotatedImage,
    Segments,
    write_instance_set,
    write_panoptic_set,
)
from frozenmm.datasets.prepare.sources import SourceFile
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary

FOLDERS = {'train': 'training', 'val': 'validation'}
_PAGE = 'http://sceneparsing.csail.mit.edu/'
_INSTANCE = 1000
"""Segment ids: category + 1 for stuff, this + the publisher's number for things."""

FILES = (
    SourceFile('ADEChallengeData2016.zip', '923 MB', _PAGE, ('images/validation', 'annotations/validation'),
               'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
               'md5:7328b3957e407ddae1d3cbf487f149ef', '..'),
    SourceFile('annotations_instance.tar', 'about 90 MB', _PAGE, ('annotations_instance/validation', ),
               f'{_PAGE}data/ChallengeData2017/annotations_instance.tar'))


def convert(folder: Path, split: str) -> None:
    """Write `ade20k_panoptic_<split>.json` with its maps, and `ade20k_instance_<split>.json`.

    The semantic maps need no conversion: 0 is void and k is class k - 1.
    """
    vocabulary = Vocabulary.named('ade20k_150')
    name = FOLDERS[split]
    images = [AnnotatedImage(path.stem, path, path.name, (folder / 'annotations' / name / f'{path.stem}.png',
                                                          folder / 'annotations_instance' / name / f'{path.stem}.png'))
              for path in sorted((folder / 'images' / name).glob('*.jpg'))]
    write_panoptic_set(images, panoptic_segments, json_path=folder / f'ade20k_panoptic_{split}.json',
                       map_folder=folder / f'ade20k_panoptic_{split}', vocabulary=vocabulary)
    write_instance_set(images, instance_segments, json_path=folder / f'ade20k_instance_{split}.json',
                       vocabulary=vocabulary)


def panoptic_segments(image: AnnotatedImage) -> Segments:
    """Stuff of the semantic map, and the instances on top of it; what the semantic map alone calls a thing is void."""
    vocabulary = Vocabulary.named('ade20k_150')
    semantic = read_picture(image.annotations[0]).astype(np.int64)
    things = instance_segments(image)
    stuff = [entry.id for entry in vocabulary if not entry.isthing and entry.id is not None]
    ids = np.where(np.isin(semantic, [number + 1 for number in stuff]), semantic, 0)
    ids = np.where(things.ids > 0, things.ids, ids)
    return Segments(ids, {number + 1: number for number in stuff} | dict(things.classes))


def instance_segments(image: AnnotatedImage) -> Segments:
    """Things of the instance map: red holds the class (1..100), green the object's number, 0 for nothing.

    Raises:
        UserError: an object with two classes, or a class outside 1..100.
    """
    things = [entry.id for entry in Vocabulary.named('ade20k_150') if entry.isthing]
    red, green = np.moveaxis(read_picture(image.annotations[1], mode='RGB').astype(np.int64), -1, 0)[:2]
    classes: dict[int, int] = {}
    for number in np.unique(green[green > 0]).tolist():
        kinds = np.unique(red[green == number]).tolist()
        if len(kinds) != 1 or not 1 <= kinds[0] <= len(things):
            raise UserError(f'object {number} of {image.annotations[1]} has the classes {kinds}; one of '
                             f'1..{len(things)} was expected')
        # the instance classes are the things among the 150 classes, in their order
        classes[_INSTANCE + number] = things[kinds[0] - 1]
    return Segments(np.where(green > 0, green + _INSTANCE, 0), classes)
