"""LVIS v1: its vocabulary with synonyms, out of the annotation file; the pictures are COCO's."""
from __future__ import annotations

import json
from pathlib import Path

from frozenmm.datasets.prepare.coco import image_archives
from frozenmm.datasets.prepare.sources import SourceFile
from frozenmm.errors import UnreadableFile, UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass

_PAGE = 'https://www.lvisdataset.org/dataset'
FILES = (
    # pictures of LVIS's validation set come from both of COCO's 2017 sets
    *image_archives('../coco', all_splits=True),
    SourceFile('lvis_v1_val.json.zip', 'about 190 MB unpacked', _PAGE, ('lvis_v1_val.json', ),
               'https://dl.fbaipublicfiles.com/LVIS/lvis_v1_val.json.zip',
               'sha256:2bf946b92c3037f53c172d80017f5b74ea035f00a21b20e0766b3b638b2363f9', split='val'),
    SourceFile('lvis_v1_train.json.zip', 'about 1 GB unpacked', _PAGE, ('lvis_v1_train.json', ),
               'https://dl.fbaipublicfiles.com/LVIS/lvis_v1_train.json.zip', split='train'))


def convert(folder: Path, split: str) -> None:
    """Write `vocabulary.json`: every category with its synonyms, all of them things.

    Raises:
        UserError: the annotation file is another one.
    """
    source = folder / f'lvis_v1_{split}.json'
    with reading(source, 'an annotation file of LVIS v1', 'unpack its archive again'):
        content = json.loads(source.read_text(encoding='utf-8'))
        entries = sorted(content['categories'], key=lambda entry: entry['id'])
        classes = tuple(VocabularyClass(*_words(entry['synonyms']), id=entry['id'], isthing=True) for entry in entries)
        try:
            vocabulary = Vocabulary(classes, 'lvis_v1')
        except UserError as error:  # it speaks of words, not of the file that they come from
            raise UnreadableFile(f'{source}: {error}') from error
    vocabulary.save(folder / 'vocabulary.json')


def _words(synonyms: list[str]) -> tuple[str, tuple[str, ...]]:
    """Name and synonyms in plain words: "aerosol_can" is written "aerosol can"."""
    first, *rest = (' '.join(word.replace('_', ' ').split()) for word in synonyms)
    return first, tuple(rest)
