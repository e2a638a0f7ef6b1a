"""Semantic label maps as a data set for mmdet and mmseg, with any number of classes."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from frozenmm.datasets.annotation_pictures import VOID_8BIT, VOID_16BIT, read_picture
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class SemanticMaps(BaseDataset):
    """Pictures with one label map each; samples serve the pipelines of mmdet and of mmseg.

    Args:
        vocabulary: the classes, in the order of the labels.
        ann_file: a list of names without ending, one per line; all pictures of the folder by default.
        img_suffix: what follows the name in a picture's file name; pictures may lie in subfolders.
        seg_suffix: what follows the name in a map's file name.
        reduce_zero_label: label 0 is void, and k is class k - 1.
        **kwargs: for `mmengine.dataset.BaseDataset`: `data_root`, `data_prefix` (`img` and `seg`), `pipeline`,
            `test_mode`, `indices`, ...

    Raises:
        FileNotFoundError: no pictures, or a picture or a map is missing.
    """

    def __init__(self, vocabulary: VocabularySource, *, ann_file: str = '', img_suffix: str = '.jpg',
                 seg_suffix: str = '.png', reduce_zero_label: bool = False, **kwargs: object) -> None:
        self.vocabulary = Vocabulary.read(vocabulary)
        self.img_suffix = img_suffix
        self.seg_suffix = seg_suffix
        self.reduce_zero_label = reduce_zero_label
        super().__init__(ann_file=ann_file, metainfo=self.vocabulary.metainfo(), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dictionary per picture, in the order of their names."""
        images, maps = Path(self.data_prefix['img']), Path(self.data_prefix['seg'])
        if self.ann_file:
            listed = Path(self.ann_file)
            if not listed.is_file():
                raise FileNotFoundError(f'there is no list of names {listed.absolute()}')
            found = {name: images / f'{name}{self.img_suffix}' for name in listed.read_text(encoding='utf-8').split()}
        else:
            found = {path.name.removesuffix(self.img_suffix): path for path in images.rglob(f'*{self.img_suffix}')}
        if not found:
            raise FileNotFoundError(f'{images.absolute()} holds no pictures *{self.img_suffix}; prepare the data set '
                                    'first (tools/prepare_data.py)')
        samples = [dict(img_path=str(found[name]), img_id=name, seg_map_path=str(maps / f'{name}{self.seg_suffix}'),
                        reduce_zero_label=self.reduce_zero_label, label_map=None, seg_fields=[], instances=[])
                   for name in sorted(found)]
        for key in 'img_path', 'seg_map_path':
            folders = {path: {entry.name for entry in path.iterdir()} if path.is_dir() else set()
                       for path in {Path(sample[key]).parent for sample in samples}}
            lacking = [sample[key] for sample in samples if Path(sample[key]).name not in folders[
                Path(sample[key]).parent]]
            if lacking:
                raise FileNotFoundError(f'{len(lacking)} of {len(samples)} files are missing, e.g. '
                                        f'{Path(lacking[0]).absolute()}; prepare the data set first '
                                        '(tools/prepare_data.py)')
        return samples


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Load a label map of 8 or 16 bits, with or without a palette, into `gt_seg_map` (H, W) int32.

    Unlike the loaders of mmdet and mmseg it knows more than 255 classes: there void is 65535. A map that is there
    already, of panoptic annotations for example, is replaced.

    Args:
        key: entry of the sample that holds the path.
        reduce_zero_label: label 0 is void, and k is class k - 1; by default as the sample says.
    """

    def __init__(self, key: str = 'seg_map_path', *, reduce_zero_label: bool | None = None) -> None:
        self.key = key
        self.reduce_zero_label = reduce_zero_label

    def transform(self, results: dict) -> dict:
        """The sample with `gt_seg_map` and `ignore_index`."""
        if not results.get(self.key):
            raise ValueError(f'the sample of {results.get("img_path")} has no {self.key!r}; give the data set the '
                             'folder of its label maps in data_prefix')
        stored = read_picture(Path(results[self.key]))
        if stored.ndim != 2:
            raise ValueError(f'{results[self.key]} has the shape {stored.shape}; a label map has one channel')
        void = VOID_8BIT if stored.dtype == np.uint8 else VOID_16BIT
        labels = stored.astype(np.int32)
        if results.get('reduce_zero_label', False) if self.reduce_zero_label is None else self.reduce_zero_label:
            labels = np.where((labels == 0) | (labels == void), void, labels - 1)
        results['gt_seg_map'] = labels
        results['ignore_index'] = void
        fields = results.setdefault('seg_fields', [])
        if 'gt_seg_map' not in fields:
            fields.append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(key={self.key!r}, reduce_zero_label={self.reduce_zero_label})'
