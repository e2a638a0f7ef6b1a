"""PASCAL Context: label maps with 459 and with the 59 most frequent classes, out of the publisher's MATLAB files."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from frozenmm.datasets.prepare.annotations import AnnotatedImage, check_size, write_label_maps
from frozenmm.datasets.prepare.matlab import read_matrix
from frozenmm.datasets.prepare.pascal_voc import listed
from frozenmm.datasets.prepare.sources import SourceFile
from frozenmm.errors import UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary

FILES = (
    SourceFile('VOCtrainval_03-May-2010.tar', '1.3 GB', 'http://host.robots.ox.ac.uk/pascal/VOC/voc2010/',
               ('JPEGImages', 'ImageSets/Main/{split}.txt'),
               'http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar',
               'md5:da459979d0c395079b5c75ee67908abb', '../..'),
    SourceFile('trainval.tar.gz', 'about 31 MB', 'https://www.cs.stanford.edu/~roozbeh/pascal-context/', ('trainval', ),
               'https://www.cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz'))
_OTHER_NAMES = {'computer case': 'computer', 'street': 'road', 'diningtable': 'table'}
"""Names of the 59 classes that are called otherwise among the 459 (same numbers in the publisher's mapping)."""


def convert(folder: Path, split: str) -> None:
    """Write `labels_459/*.png` (16 bits, 65535 for void) and `labels_59/*.png`, and the list of the split.

    The split is VOC 2010's (4998 pictures for training, 5105 for validation); `context_<split>.txt` repeats it.

    Raises:
        MissingFile: no list of the split, or no MATLAB file of a picture.
        UserError: a MATLAB file without a label map, or with one of another size than the picture.
    """
    whole = Vocabulary.named('pascal_context_459')
    images = [AnnotatedImage(stem, folder / 'JPEGImages' / f'{stem}.jpg', f'{stem}.jpg',
                             (folder / 'trainval' / f'{stem}.mat', ))
              for stem in listed(folder / 'ImageSets' / 'Main' / f'{split}.txt')]
    frequent = frequent_classes()

    def labels(image: AnnotatedImage) -> np.ndarray:
        stored = label_map(image.annotations[0], len(whole))
        check_size(image, stored)
        return stored - 1

    write_label_maps(images, labels, folder / 'labels_459', num_classes=len(whole))
    write_label_maps(images, lambda image: frequent[labels(image)], folder / 'labels_59', num_classes=59)


def frequent_classes() -> np.ndarray:
    """(460,) index among the 59 classes of each of the 459 classes, -1 for the others and, last, for void (-1)."""
    whole, frequent = Vocabulary.named('pascal_context_459'), Vocabulary.named('pascal_context_59')
    table = np.full(len(whole) + 1, -1)
    for index, name in enumerate(frequent.names):
        table[whole.index(_OTHER_NAMES.get(name, name))] = index
    return table


def label_map(path: Path, num_classes: int) -> np.ndarray:
    """(H, W) int64 `LabelMap` of a MATLAB file: 1..K, 0 for void.

    Raises:
        MissingFile: no such file.
        UserError: no MATLAB file, no `LabelMap` in it, or other values.
    """
    with reading(path, 'a MATLAB file with a LabelMap', 'is trainval.tar.gz unpacked completely?'):
        labels = read_matrix(path.read_bytes(), 'LabelMap').astype(np.int64)
    lowest, highest = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if labels.ndim != 2 or lowest < 0 or highest > num_classes:
        raise UserError(f'the LabelMap of {path} must be (H, W) with values 0..{num_classes}; got {labels.shape} with '
                         f'{lowest}..{highest}')
    return labels
