"""The pictures of LVIS v1 as an mmdet data set for evaluation."""
from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlparse

from mmdet.datasets import BaseDetDataset

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
        FileNotFoundError: no annotation file.
        ValueError: it is not LVIS v1's, or has another number of categories than the vocabulary.
    """

    def __init__(self, ann_file: str, *, vocabulary: VocabularySource, **kwargs: object) -> None:
        self.vocabulary = Vocabulary.read(vocabulary)
        super().__init__(ann_file=ann_file, metainfo=self.vocabulary.metainfo(), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dictionary per picture, by id."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(f'no annotation file {path.resolve()}; prepare LVIS first (tools/prepare_data.py)')
        content = json.loads(path.read_text(encoding='utf-8'))
        if len(content['categories']) != len(self.vocabulary):
            raise ValueError(f'{path} has {len(content["categories"])} categories, but {self.vocabulary.name} has '
                             f'{len(self.vocabulary)} classes; prepare the vocabulary out of this file')
        if any('coco_url' not in entry for entry in content['images']):
            raise ValueError(f'{path} has images without coco_url, which says where they lie; is it LVIS v1?')
        folder = Path(self.data_prefix.get('img') or '')
        return [dict(img_path=str(folder / urlparse(entry['coco_url']).path.lstrip('/')), img_id=entry['id'],
                     height=entry['height'], width=entry['width'], instances=[])
                for entry in sorted(content['images'], key=lambda entry: entry['id'])]
