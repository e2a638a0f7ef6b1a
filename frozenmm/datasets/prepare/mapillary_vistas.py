"""Mapillary Vistas with the 65 classes of version 1.2: panoptic annotations."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.datasets.panoptic_files import read_panoptic_file
from frozenmm.datasets.prepare.annotations import AnnotatedImage, Segments, write_panoptic_set
from frozenmm.datasets.prepare.sources import SourceFile
from frozenmm.errors import MissingFile, UserError
from frozenmm.foundation.vocabulary import Vocabulary

FOLDERS = {'train': 'training', 'val': 'validation'}
UNLABELED = 65
FILES = (
    SourceFile('*apillary-[Vv]istas-dataset*.zip', 'about 25 GB (version 1.2; 2.0 holds both)',
               'https://www.mapillary.com/dataset/vistas', ('validation/images', )), )


def convert(folder: Path, split: str) -> None:
    """Make sure that `<training or validation>/panoptic/panoptic_2018.json` and its maps are there.

    The release has them; version 2.0 keeps them in `v1.2/`, to which a link is made. Where they are missing, they are
    made of the 16-bit instance maps.

    Raises:
        MissingFile: neither panoptic nor instance maps.
        UserError: panoptic annotations with other categories, as version 2.0 has.
    """
    vocabulary = Vocabulary.named('mapillary_vistas_65')
    part = folder / FOLDERS[split]
    source = part / 'v1.2' if (part / 'v1.2').is_dir() else part
    panoptic = part / 'panoptic'
    if source != part and not panoptic.exists() and (source / 'panoptic').is_dir():
        panoptic.symlink_to(Path('v1.2', 'panoptic'))
    json_path = panoptic / 'panoptic_2018.json'
    if not json_path.is_file():
        instances = source / 'instances'
        images = [AnnotatedImage(path.stem, path, path.name, (instances / f'{path.stem}.png', ))
                  for path in sorted((part / 'images').glob('*.jpg'))]
        if not images or not instances.is_dir():
            raise MissingFile(f'{part.absolute()} has neither panoptic/panoptic_2018.json nor images/*.jpg with '
                                    'instances/*.png; is the archive unpacked completely?')
        write_panoptic_set(images, segments, json_path=json_path, map_folder=panoptic, vocabulary=vocabulary)
    found = sorted(category.id for category in read_panoptic_file(json_path).categories)
    if found != sorted(vocabulary.ids):
        raise UserError(f'{json_path} has {len(found)} categories with ids {found[0]}..{found[-1]}; the 65 of version '
                         '1.2, 1..65, were expected')


def segments(image: AnnotatedImage) -> Segments:
    """Segments of an instance map: 256 times a label (0..64, 65 is unlabelled) plus an object's number."""
    values = read_picture(image.annotations[0]).astype(np.int64)
    labels = {value: value // 256 for value in np.unique(values).tolist()}
    # label and number 0 are legal, segment id 0 is void
    return Segments(values + 1, {value + 1: label + 1 for value, label in labels.items() if label < UNLABELED})
