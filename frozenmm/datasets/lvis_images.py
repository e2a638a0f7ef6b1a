"""The pictures of LVIS v1 as an mmdet data set for evaluation."""
from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlparse

from mmdet.datasets import BaseDetDataset

from frozenmm.errors import UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import DATASETS


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
            samples = [dict(img_path=str(folder / urlparse(str(entry['coco_url'])).path.lstrip('/')),
                            img_id=entry['id'], height=int(entry['height']), width=int(entry['width']), instances=[])
                       for entry in sorted(content['images'], key=lambda entry: entry['id'])]
        if not samples:
            raise UserError(f'{path} lists no pictures; is it the annotation file of LVIS v1?')
        if count != len(self.vocabulary):
            raise UserError(f'{path} has {count} categories, but {self.vocabulary.name} has {len(self.vocabulary)} '
                            'classes; prepare the vocabulary out of this file')
        return samples
