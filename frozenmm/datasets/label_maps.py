"""Semantic label maps as a data set for mmdet and mmseg, with any number of classes."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from frozenmm.datasets.annotation_pictures import VOID_8BIT, VOID_16BIT, read_picture
from frozenmm.errors import MissingFile, UserError, reading
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
        MissingFile: no pictures, or a picture or a map is missing.
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
            with reading(self.ann_file, 'a list of names, one per line'):
                names = Path(self.ann_file).read_text(encoding='utf-8').split()
            found = {name: images / f'{name}{self.img_suffix}' for name in names}
        else:
            found = {path.name.removesuffix(self.img_suffix): path for path in images.rglob(f'*{self.img_suffix}')}
        if not found:
            raise MissingFile(f'{images.absolute()} holds no pictures *{self.img_suffix}; prepare the data set '
                                    'first (tools/prepare_data.py)')
        paths = {name: (found[name], maps / f'{name}{self.seg_suffix}') for name in sorted(found)}
        for files in zip(*paths.values()):
            _check_there(files)
        return [dict(img_path=str(picture), img_id=name, seg_map_path=str(label_map),
                     reduce_zero_label=self.reduce_zero_label, label_map=None, seg_fields=[], instances=[])
                for name, (picture, label_map) in paths.items()]


def _check_there(files: Sequence[Path]) -> None:
    folders = {folder: {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
               for folder in {file.parent for file in files}}
    lacking = [file for file in files if file.name not in folders[file.parent]]
    if lacking:
        raise MissingFile(f'{len(lacking)} of {len(files)} files are missing, e.g. {lacking[0].absolute()}; prepare '
                          'the data set first (tools/prepare_data.py)')


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
            raise UserError(f'the sample of {results.get("img_path")} has no {self.key!r}; give the data set the '
                             'folder of its label maps in data_prefix')
        stored = read_picture(Path(results[self.key]))
        if stored.ndim != 2:
            raise UserError(f'{results[self.key]} has the shape {stored.shape}; a label map has one channel')
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
