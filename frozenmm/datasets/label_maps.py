"""Semantic label maps as a data set for mmdet and mmseg, with any number of classes."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from frozenmm.datasets.annotation_pictures import VOID_8BIT, VOID_16BIT, read_picture
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import DATASETS, TRANSFORMS, installed


@DATASETS.register_module()
class SemanticMaps(BaseDataset):
    """Pictures with one label map each; samples serve the pipelines of mmdet and of mmseg.

    Args:
        vocabulary: the classes, in the order of the labels.
        ann_file: a list of names without ending, one per line; all pictures of the folder by default.
        img_suffix: what follows the name in a picture's file name, or several such endings; pictures may lie in
            subfolders.
        seg_suffix: what follows the name in a map's file name.
        reduce_zero_label: label 0 is void, and k is class k - 1.
        void_labels: values of the maps, before that, that mean nothing; 255 (65535 in maps of 16 bits) always does.
        **kwargs: for `mmengine.dataset.BaseDataset`: `data_root`, `data_prefix` (`img` and `seg`), `pipeline`,
            `test_mode`, `indices`, ...

    Raises:
        MissingFile: no pictures, or a picture or a map is missing.
        UserError: two pictures of one name with different endings.
    """

    def __init__(self, vocabulary: VocabularySource, *, ann_file: str = '', img_suffix: str | Sequence[str] = '.jpg',
                 seg_suffix: str = '.png', reduce_zero_label: bool = False, void_labels: Sequence[int] = (),
                 **kwargs: object) -> None:
        self.vocabulary = Vocabulary.read(vocabulary)
        self.img_suffixes = (img_suffix, ) if isinstance(img_suffix, str) else tuple(img_suffix)
        self.seg_suffix = seg_suffix
        self.reduce_zero_label = reduce_zero_label
        self.void_labels = tuple(void_labels)
        super().__init__(ann_file=ann_file, metainfo=self.vocabulary.metainfo(), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dictionary per picture, in the order of their names."""
        images, maps = Path(self.data_prefix['img']), Path(self.data_prefix['seg'])
        if self.ann_file:
            with reading(self.ann_file, 'a list of names, one per line'):
                names = Path(self.ann_file).read_text(encoding='utf-8').split()
            found = {name: self._picture(images, name) for name in names}
        else:
            found = self._pictures(images)
        if not found:
            raise MissingFile(f'{images.absolute()} holds no pictures *{" or *".join(self.img_suffixes)}; prepare the '
                              'data set first (tools/prepare_data.py)')
        paths = {name: (found[name], maps / f'{name}{self.seg_suffix}') for name in sorted(found)}
        for files in zip(*paths.values()):
            _check_there(files)
        return [dict(img_path=str(picture), img_id=name, seg_map_path=str(label_map),
                     reduce_zero_label=self.reduce_zero_label, void_labels=self.void_labels,
                     num_classes=len(self.vocabulary), label_map=None, seg_fields=[], instances=[])
                for name, (picture, label_map) in paths.items()]

    def _picture(self, images: Path, name: str) -> Path:
        paths = [images / f'{name}{suffix}' for suffix in self.img_suffixes]
        return next((path for path in paths if path.is_file()), paths[0])

    def _pictures(self, images: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for suffix in self.img_suffixes:
            for path in images.rglob(f'*{suffix}'):
                other = found.setdefault(path.name.removesuffix(suffix), path)
                if other.name != path.name:
                    raise UserError(f'{other} and {path} would have the same label map; give one of them another name')
        return found


def _check_there(files: Sequence[Path]) -> None:
    folders = {folder: {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
               for folder in {file.parent for file in files}}
    lacking = [file for file in files if file.name not in folders[file.parent]]
    if lacking:
        raise MissingFile(f'{len(lacking)} of {len(files)} files are missing, e.g. {lacking[0].absolute()}; a '
                          'picture and its map have one name, but for the endings img_suffix and seg_suffix (public '
                          'data sets: `frozenmm prepare`)')


def void_of(stored: np.ndarray, path: object) -> int:
    """The value without annotation in a label map as stored in a file.

    Raises:
        UserError: more than one channel.
    """
    if stored.ndim != 2:
        raise UserError(f'{path} has the shape {stored.shape}; a label map has one channel (gray or palette), with the '
                        'number of a class in each pixel: convert its colours to numbers')
    return VOID_8BIT if stored.dtype == np.uint8 else VOID_16BIT


def label_classes(stored: np.ndarray, sample: Mapping, classes: int) -> list[int]:
    """The classes that occur in a label map (H, W), as stored.

    Args:
        stored: the map.
        sample: with `seg_map_path`, and where they are known `reduce_zero_label`, `void_labels` and `label_map`.
        classes: K; 0 where nobody knows.

    Raises:
        UserError: a value that is neither a class nor void; the text gives the option that would fit.
    """
    void = {void_of(stored, sample.get('seg_map_path')), *(sample.get('void_labels') or ())}
    values = [value for value in np.unique(stored).tolist() if value not in void]
    found = [value - 1 for value in values if value] if sample.get('reduce_zero_label') else values
    if sample.get('label_map'):
        found = [sample['label_map'].get(value, value) for value in found]
    beyond = [value for value in found if classes and value >= classes and value != 255]
    if not beyond:
        return [value for value in found if value != 255 or classes > 255]
    if not sample.get('reduce_zero_label') and max(values) == classes and 0 not in values:
        remedy = 'labels that begin with 1 need reduce_zero_label=True'
    elif not sample.get('reduce_zero_label') and max(values) == classes:
        remedy = (f'if 0 means void, reduce_zero_label=True; if {classes} means void, void_labels=[{classes}]')
    else:
        remedy = 'name the classes that are missing, or say void_labels=[...] for values that mean nothing'
    raise UserError(f'{sample.get("seg_map_path")} has the labels {values[:12]}, but there are {classes} classes, '
                    f'0 to {classes - 1}; {remedy}')


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
        stored = read_picture(Path(results[self.key]), kind='a label map')
        void = void_of(stored, results[self.key])
        reduced = dict(results)
        if self.reduce_zero_label is not None:
            reduced['reduce_zero_label'] = self.reduce_zero_label
        if results.get('num_classes'):
            label_classes(stored, dict(reduced, seg_map_path=results[self.key]), results['num_classes'])
        labels = stored.astype(np.int32)
        if results.get('void_labels'):
            labels[np.isin(stored, results['void_labels'])] = void
        if reduced.get('reduce_zero_label', False):
            labels = np.where((labels == 0) | (labels == void), void, labels - 1)
        results['gt_seg_map'] = labels
        results['ignore_index'] = void
        unlabelled = results.get('instances') == [] and not {'gt_masks', 'gt_bboxes_labels'} & set(results)
        if unlabelled and installed('mmdet'):
            # mmdet's padding of masks expects some in every sample; without labels they say that nobody counted objects
            from mmdet.structures.mask import BitmapMasks
            results['gt_masks'] = BitmapMasks([], *labels.shape)
        fields = results.setdefault('seg_fields', [])
        if 'gt_seg_map' not in fields:
            fields.append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(key={self.key!r}, reduce_zero_label={self.reduce_zero_label})'
