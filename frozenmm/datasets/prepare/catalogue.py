"""All data sets that can be prepared, by name."""
from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from frozenmm.compat.files import locked
from frozenmm.datasets.prepare import (
    ade20k,
    ade20k_full,
    bdd100k,
    cityscapes,
    coco,
    coco_mini,
    lvis,
    mapillary_vistas,
    pascal_context,
    pascal_voc,
)
from frozenmm.datasets.prepare.sources import SourceFile, obtain, obtain_pictures
from frozenmm.errors import UserError
from frozenmm.foundation.lookup import lookup

SPLITS = ('train', 'val')


@dataclass(frozen=True)
class Preparation:
    """How a data set becomes what the configs read.

    Attributes:
        title: its name for people.
        folder: below the root of all data.
        licence: what its publisher asks.
        files: its archives.
        convert: makes the files of a split, given the data set's folder.
        evaluated_by: names of the files in `configs/_base_/datasets` that read it.
        pictures: path -> address of the pictures that a split still lacks, where they are published one by one.
    """

    title: str
    folder: str
    licence: str
    files: tuple[SourceFile, ...]
    convert: Callable[[Path, str], None]
    evaluated_by: tuple[str, ...]
    pictures: Callable[[Path, str], dict[Path, str]] = lambda folder, split: {}


PREPARATIONS = {
    'coco': Preparation(
        'COCO panoptic 2017', 'coco', 'annotations CC BY 4.0; pictures under the Flickr licence of each', coco.FILES,
        coco.convert, ('coco_panoptic', )),
    'coco_mini': Preparation(
        'coco_mini, 138 pictures of COCO 2017', 'coco_mini',
        'annotations CC BY 4.0; pictures under the Flickr licence of each, most of them NonCommercial', coco_mini.FILES,
        coco_mini.convert, (), coco_mini.addresses),
    'ade20k': Preparation(
        'ADE20K, 150 classes', 'ADEChallengeData2016', 'BSD-3-Clause for annotations; pictures for research only',
        ade20k.FILES, ade20k.convert, ('ade20k_150', )),
    'ade20k_full': Preparation(
        'ADE20K, 847 classes', 'ADE20K_2021_17_01', 'for research and education, after registration',
        ade20k_full.FILES, ade20k_full.convert, ('ade20k_847', )),
    'cityscapes': Preparation(
        'Cityscapes', 'cityscapes', 'non-commercial, after registration', cityscapes.FILES, cityscapes.convert,
        ('cityscapes', )),
    'mapillary_vistas': Preparation(
        'Mapillary Vistas, version 1.2', 'mapillary_vistas', 'CC BY-NC-SA 4.0, after registration',
        mapillary_vistas.FILES, mapillary_vistas.convert, ('mapillary_vistas', )),
    'pascal_voc': Preparation(
        'PASCAL VOC 2012', 'VOCdevkit/VOC2012', 'Flickr terms of the pictures', pascal_voc.FILES, pascal_voc.convert,
        ('pascal_voc_21', 'pascal_voc_20')),
    'pascal_context': Preparation(
        'PASCAL Context', 'VOCdevkit/VOC2010', 'Flickr terms of the pictures; none stated for the annotations',
        pascal_context.FILES, pascal_context.convert, ('pascal_context_459', 'pascal_context_59')),
    'lvis': Preparation(
        'LVIS v1', 'lvis', 'annotations CC BY 4.0; pictures are COCO\'s', lvis.FILES, lvis.convert, ('lvis', )),
    'bdd100k': Preparation(
        'BDD100K', 'bdd100k', 'non-commercial, after registration', bdd100k.FILES, bdd100k.convert,
        ('bdd100k_panoptic', 'bdd100k_semantic')),
}


def prepare(name: str, root: str | Path = 'data', *, splits: Sequence[str] = ('val', ), download: bool = True,
            archives: str | Path | None = None) -> Path:
    """Bring a data set into the layout that the configs read; what is done already is not done again.

    Args:
        name: a key of `PREPARATIONS`.
        root: the folder of all data.
        splits: `'val'` for evaluation, `'train'` too for training.
        download: fetch archives that are missing, where one may without registration.
        archives: where downloaded archives lie; by default `<root>/downloads`.

    Returns:
        The data set's folder.

    Raises:
        UserError: unknown name or split; a damaged archive or annotation. The text says what to do.
        MissingFile: archives are missing; the text names all of them, their size and origin.
    """
    name = lookup(name, PREPARATIONS, 'data set')
    unknown = [split for split in splits if split not in SPLITS]
    if unknown or not splits:
        raise UserError(f'splits must be some of {list(SPLITS)}, got {list(splits)}')
    preparation = PREPARATIONS[name]
    root = Path(root)
    folder = root / preparation.folder
    places = [Path(archives) if archives is not None else root / 'downloads', folder, root]
    command = shlex.join(['python', 'tools/prepare_data.py', name, '--root', str(root), '--splits', *splits])
    # one lock for all sets of a folder: some share archives and folders
    with locked(root / '.prepare.lock', busy=f'another process prepares a data set in {root}; waiting for it'):
        obtain(preparation.files, folder, splits=splits, archives=places, download=download, command=command)
        for split in splits:
            obtain_pictures(preparation.pictures(folder, split), download=download, command=command)
            preparation.convert(folder, split)
    return folder


def listing() -> str:
    """A line per data set and archive: what, how large, where from, under which terms."""
    lines = []
    for name, preparation in PREPARATIONS.items():
        lines.append(f'{name}: {preparation.title} -> {preparation.folder}/ ({preparation.licence})')
        for file in preparation.files:
            access = 'fetched by itself' if file.url else 'after registration'
            needed = f', only for {file.split}' if file.split else ''
            lines.append(f'  {file.name} ({file.size}{needed}), {access}: {file.page}')
    return '\n'.join(lines)
