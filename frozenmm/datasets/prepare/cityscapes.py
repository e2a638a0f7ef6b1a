"""Cityscapes: panoptic and instance annotations, and label maps with training numbers, out of the fine annotations."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.datasets.prepare.annotations import (
    AnnotatedImage,
    Segments,
    write_instance_set,
    write_label_maps,
    write_panoptic_set,
)
from frozenmm.datasets.prepare.sources import SourceFile
from frozenmm.errors import MissingFile
from frozenmm.foundation.vocabulary import Vocabulary

_PAGE = 'https://www.cityscapes-dataset.com/downloads/'
FILES = (
    SourceFile('gtFine_trainvaltest.zip', '241 MB', _PAGE, ('gtFine/{split}', )),
    SourceFile('leftImg8bit_trainvaltest.zip', '11 GB', _PAGE, ('leftImg8bit/{split}', )))


def convert(folder: Path, split: str) -> None:
    """Write `annotations/{panoptic,instances}_<split>.json`, `panoptic_<split>/` and `labels_19/<split>/`.

    Raises:
        MissingFile: no pictures.
    """
    vocabulary = Vocabulary.named('cityscapes_19')
    pictures = sorted((folder / 'leftImg8bit' / split).glob('*/*_leftImg8bit.png'))
    if not pictures:
        raise MissingFile(f'{(folder / "leftImg8bit" / split).absolute()} holds no <city>/*_leftImg8bit.png; is '
                                'the archive unpacked completely?')
    images = []
    for path in pictures:
        stem, city = path.name.removesuffix('_leftImg8bit.png'), path.parent.name
        fine = folder / 'gtFine' / split / city / f'{stem}_gtFine_'
        images.append(AnnotatedImage(stem, path, f'{city}/{path.name}', (Path(f'{fine}instanceIds.png'),
                                                                         Path(f'{fine}labelIds.png'))))
    annotations = folder / 'annotations'
    write_panoptic_set(images, segments, json_path=annotations / f'panoptic_{split}.json',
                       map_folder=folder / f'panoptic_{split}', vocabulary=vocabulary)
    write_instance_set(images, segments, json_path=annotations / f'instances_{split}.json', vocabulary=vocabulary)
    indices = np.full(256, -1)
    indices[vocabulary.ids] = np.arange(len(vocabulary))
    write_label_maps(images, lambda image: indices[read_picture(image.annotations[1]) & 255],
                     folder / 'labels_19' / split, num_classes=len(vocabulary))


def segments(image: AnnotatedImage) -> Segments:
    """Segments of an `instanceIds` map.

    A value below 1000 is a label: stuff, or a group of things that were not told apart. Any other is 1000 times a label
    plus an object's number. Labels that the evaluation leaves out are void.
    """
    things = {entry.id: bool(entry.isthing) for entry in Vocabulary.named('cityscapes_19')}
    values = read_picture(image.annotations[0]).astype(np.int64)
    labels = {value: value if value < 1000 else value // 1000 for value in np.unique(values).tolist()}
    classes = {value: label for value, label in labels.items() if label in things}
    return Segments(values, classes, frozenset(value for value, label in classes.items() if value < 1000
                                               and things[label]))
