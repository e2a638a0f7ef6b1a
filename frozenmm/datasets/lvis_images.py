"""LVIS v1 as an mmdet data set: pictures for evaluation, and with boxes for training."""
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mmdet.datasets import BaseDetDataset

from frozenmm.errors import UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import DATASETS

FREQUENCIES = ('r', 'c', 'f')
"""Rare, common and frequent categories."""


@DATASETS.register_module()
class LVISImages(BaseDetDataset):
    """Pictures without annotations; `frozenmm.LVISMaskAP` reads those itself.

    Args:
        ann_file: `lvis_v1_*.json`.
        vocabulary: the classes, one per category, in the order of the categories' ids.
        **kwargs: for `mmdet.datasets.BaseDetDataset`: `data_root`, `data_prefix` (`img`: the folder with `train2017/`
            and `val2017/`), `pipeline`, `indices`, ...

    Raises:
        MissingFile: no annotation file.
        UserError: it is not LVIS v1's, or has another number of categories than the vocabulary.
    """

    def __init__(self, ann_file: str, *, vocabulary: VocabularySource, **kwargs: object) -> None:
        self.vocabulary = Vocabulary.read(vocabulary)
        super().__init__(ann_file=ann_file, metainfo=self.vocabulary.metainfo(), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dictionary per picture, by id."""
        path, folder = Path(self.ann_file), Path(self.data_prefix.get('img') or '')
        with reading(path, 'an annotation file of LVIS v1', 'prepare LVIS first (tools/prepare_data.py)'):
            content = json.loads(path.read_text(encoding='utf-8'))
            count = len(content['categories'])
            # where a picture lies is the end of its address
            instances = self.instances_of(content)
            samples = [dict(img_path=str(folder / urlparse(str(entry['coco_url'])).path.lstrip('/')),
                            img_id=entry['id'], height=int(entry['height']), width=int(entry['width']),
                            instances=instances.get(entry['id'], []))
                       for entry in sorted(content['images'], key=lambda entry: entry['id'])]
        if not samples:
            raise UserError(f'{path} lists no pictures; is it the annotation file of LVIS v1?')
        if count != len(self.vocabulary):
            raise UserError(f'{path} has {count} categories, but {self.vocabulary.name} has {len(self.vocabulary)} '
                            'classes; prepare the vocabulary out of this file')
        return samples

    def instances_of(self, content: dict) -> dict[int, list[dict]]:
        """The annotated objects of every picture by its id, as mmdet writes them; none here."""
        return {}


@DATASETS.register_module()
class LVISBoxes(LVISImages):
    """Pictures with the boxes of LVIS v1, for training; pictures without one are left out.

    Labels are the places of the categories in order of their ids. The boxes of crowds do not occur in LVIS.

    Args:
        without: frequencies (`'r'`, `'c'`, `'f'`) whose boxes are left out: `['r']` is the training set of
            open-vocabulary detectors, whose novel classes are the rare ones.
        **kwargs: see `LVISImages`.
    """

    def __init__(self, ann_file: str, *, without: Sequence[str] = (), **kwargs: Any) -> None:
        wrong = [letter for letter in without if letter not in FREQUENCIES]
        if wrong:
            raise UserError(f'without takes frequencies of LVIS, {list(FREQUENCIES)}, got {wrong[0]!r}')
        self.without = tuple(without)
        super().__init__(ann_file, **kwargs)

    def instances_of(self, content: dict) -> dict[int, list[dict]]:
        """See `LVISImages`; degenerate boxes are left out."""
        categories = sorted(content['categories'], key=lambda entry: entry['id'])
        labels = {entry['id']: index for index, entry in enumerate(categories)
                  if entry['frequency'] not in self.without}
        instances = defaultdict(list)
        for entry in content['annotations']:
            x, y, width, height = entry['bbox']
            if entry['category_id'] in labels and width >= 1 and height >= 1:
                instances[entry['image_id']].append(dict(bbox=[x, y, x + width, y + height], ignore_flag=0,
                                                         bbox_label=labels[entry['category_id']]))
        return instances

    def filter_data(self) -> list[dict]:
        """Only pictures with boxes, unless in test mode."""
        return [sample for sample in self.data_list if sample['instances'] or self.test_mode]
