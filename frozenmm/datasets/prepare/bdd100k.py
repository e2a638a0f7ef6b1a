"""BDD100K: panoptic annotations with 40 classes out of its bitmasks; the semantic maps need no conversion."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.datasets.prepare.annotations import AnnotatedImage, Segments, write_panoptic_set
from frozenmm.datasets.prepare.sources import SourceFile
from frozenmm.errors import MissingFile, UserError
from frozenmm.foundation.vocabulary import Vocabulary

_PAGE = 'https://doc.bdd100k.com/download.html'
_CROWD, _IGNORED = 2, 1
FILES = (
    SourceFile('bdd100k_images_10k.zip', '1.1 GB', _PAGE, ('images/10k/{split}', ), into='..'),
    SourceFile('bdd100k_pan_seg_labels_trainval.zip', 'about 340 MB', _PAGE, ('labels/pan_seg/bitmasks/{split}', ),
               into='..'),
    SourceFile('bdd100k_sem_seg_labels_trainval.zip', 'about 420 MB', _PAGE, ('labels/sem_seg/masks/{split}', ),
               into='..'))


def convert(folder: Path, split: str) -> None:
    """Write `annotations/panoptic_<split>.json` and `panoptic_<split>/`.

    Raises:
        MissingFile: no bitmasks.
    """
    bitmasks = sorted((folder / 'labels' / 'pan_seg' / 'bitmasks' / split).glob('*.png'))
    if not bitmasks:
        raise MissingFile(f'{(folder / "labels" / "pan_seg" / "bitmasks" / split).absolute()} holds no *.png; is '
                                'the archive unpacked completely?')
    images = [AnnotatedImage(path.stem, folder / 'images' / '10k' / split / f'{path.stem}.jpg', f'{path.stem}.jpg',
                             (path, )) for path in bitmasks]
    write_panoptic_set(images, segments, json_path=folder / 'annotations' / f'panoptic_{split}.json',
                       map_folder=folder / f'panoptic_{split}', vocabulary=Vocabulary.named('bdd100k_40'))


def segments(image: AnnotatedImage) -> Segments:
    """Segments of a bitmask: red holds the class (0 is unlabelled), green attributes, blue and alpha a number.

    Crowds, and regions to be ignored, are segments that a prediction neither has to find nor is blamed for.

    Raises:
        UserError: the picture has no four channels.
    """
    stored = read_picture(image.annotations[0])
    if stored.ndim != 3 or stored.shape[2] != 4:
        raise UserError(f'{image.annotations[0]} has the shape {stored.shape}; a bitmask of BDD100K has four channels '
                         '(the color maps beside it will not do)')
    red, green, blue, alpha = np.moveaxis(stored.astype(np.int64), -1, 0)
    numbers = blue * 256 + alpha
    # the class is part of the id, since unlabelled pixels and segments may share a number
    ids = np.where(red > 0, red * 65536 + numbers, 0)
    known = set(Vocabulary.named('bdd100k_40').ids)
    present = [value for value in np.unique(ids).tolist() if value // 65536 in known]
    flagged = set(np.unique(ids[(green & (_CROWD | _IGNORED)) > 0]).tolist())
    return Segments(ids, {value: value // 65536 for value in present}, frozenset(flagged & set(present)))
