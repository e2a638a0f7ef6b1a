"""PASCAL-5i, COCO-20i and FSS-1000: the class folds on which zero-shot segmentation is measured."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from frozenmm.datasets.episodes import ASKING, MAPS, EpisodicSegDataset
from frozenmm.deprecation import grouped_arguments
from frozenmm.errors import MissingFile, UserError
from frozenmm.registry import DATASETS

SPLITS = ('train', 'test', 'all')
FOLDS = (0, 1, 2, 3)
COCO_TESTS = ('all', 'first1000', 'balanced1000')


@cache
def fold_table(name: str) -> dict[str, Any]:
    """The published facts of a benchmark: `'pascal5i'`, `'coco20i'` or `'fss1000'`."""
    return json.loads((Path(__file__).parent / 'fold_tables' / f'{name}.json').read_text(encoding='utf-8'))


def unseen_classes(benchmark: str, fold: int) -> list[int]:
    """Numbers (from 1) of the classes that training of a fold never names.

    Args:
        benchmark: `'pascal5i'` (5 of 20, in a row) or `'coco20i'` (20 of 80, interleaved).
        fold: 0, 1, 2 or 3.

    Raises:
        UserError: unknown benchmark or fold.

    >>> unseen_classes('pascal5i', 1)
    [6, 7, 8, 9, 10]
    """
    if fold not in FOLDS:
        raise UserError(f'fold must be one of {list(FOLDS)}, got {fold!r}')
    if benchmark == 'pascal5i':
        return list(range(5 * fold + 1, 5 * fold + 6))
    if benchmark == 'coco20i':
        return list(range(fold + 1, 81, 4))
    raise UserError(f'benchmark must be \'pascal5i\' or \'coco20i\', got {benchmark!r}')


def _class_ids(benchmark: str, fold: int, split: str, count: int) -> list[int]:
    if split not in SPLITS:
        raise UserError(f'split must be one of {list(SPLITS)}, got {split!r}')
    unseen = unseen_classes(benchmark, fold)
    if split == 'all':
        return list(range(1, count + 1))
    return unseen if split == 'test' else [number for number in range(1, count + 1) if number not in unseen]


@DATASETS.register_module()
class PASCAL5iDataset(EpisodicSegDataset):
    """PASCAL-5i: 15 of the 20 VOC classes in training, the 5 others at test.

    Training takes every image with a label map that is not in VOC's val list (`ImageSets/Segmentation/val.txt`); unseen
    objects in it are background.

    Args:
        fold: 0..3; the unseen classes are 5 fold + 1 .. 5 fold + 5.
        split: `'train'` asks for seen classes, `'test'` for unseen ones on the published pairs (346, 451, 725, 346),
            `'all'` for all classes on the test images.
        data_root: VOC2012, with `JPEGImages/` and the label maps of SBD and VOC in `SegmentationClassAug/`.
        classes: names of the classes; the official prompts use VOC's run-together ones, the default.
        asking: see `EpisodicSegDataset`.
        **kwargs: for `EpisodicSegDataset`.

    Raises:
        UserError: unknown fold or split.
        MissingFile: no val list.
    """

    @grouped_arguments(removed_in='0.3', asking={name: name for name in ASKING})
    def __init__(self, fold: int, split: str, *, data_root: str = 'data/VOCdevkit/VOC2012',
                 classes: Sequence[str] | None = None, asking: Mapping[str, Any] | None = None,
                 **kwargs: Any) -> None:
        table = fold_table('pascal5i')
        class_ids = _class_ids('pascal5i', fold, split, len(table['classes']))
        kwargs.setdefault('data_prefix', dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'))
        asking = dict(asking or {})
        if split == 'test' and asking.get('classes_per_episode', 1) == 1:
            asking.setdefault('pairs', table['test_pairs'][fold])
        self.split = split
        super().__init__(classes or table['classes'], data_root=data_root, class_ids=class_ids, asking=asking, **kwargs)

    def presence(self) -> dict[str, list[int]]:
        """See `EpisodicSegDataset.presence`; of the images of this split."""
        path = Path(self.data_root, 'ImageSets', 'Segmentation', 'val.txt')
        if not path.is_file():
            raise MissingFile(f'there is no {path.absolute()}, which says what belongs to the test')
        val = set(path.read_text().split())
        return {stem: shown for stem, shown in super().presence().items() if (stem in val) == (self.split != 'train')}


@DATASETS.register_module()
class COCO20iDataset(EpisodicSegDataset):
    """COCO-20i: 60 of the 80 COCO classes in training, the 20 others at test.

    Args:
        fold: 0..3; the unseen classes are fold + 1, fold + 5, ...
        split: `'train'` asks for seen classes, `'test'` for unseen ones, `'all'` for all.
        data_root: COCO.
        test: `'all'` pairs, `'balanced1000'` (seeded, uniform over classes) or `'first1000'`, what the official code
            tests on (file names of val2014; half of fold 0 are persons).
        prompt_names: the official prompts' run-together VOC-style names (`aeroplane`, `trafficlight`); COCO's own names
            by default.
        classes: other names of the 80 classes.
        asking, maps: see `EpisodicSegDataset`. Without `annotations` among `maps`, `seg_map_path` holds label maps
            whose values are the rank of the COCO category, from 1.
        **kwargs: for `EpisodicSegDataset`.

    Raises:
        UserError: unknown fold, split or test.
    """

    @grouped_arguments(removed_in='0.3', asking={name: name for name in ASKING}, maps={name: name for name in MAPS})
    def __init__(self, fold: int, split: str, *, data_root: str = 'data/coco', test: str = 'all',
                 prompt_names: bool = False, classes: Sequence[str] | None = None,
                 asking: Mapping[str, Any] | None = None, maps: Mapping[str, Any] | None = None,
                 **kwargs: Any) -> None:
        table = fold_table('coco20i')
        class_ids = _class_ids('coco20i', fold, split, len(table['names']))
        if test not in COCO_TESTS:
            raise UserError(f'test must be one of {list(COCO_TESTS)}, got {test!r}')
        asking = dict(asking or {})
        if split == 'test' and test == 'first1000':
            asking['pairs'] = [(f'COCO_val2014_{image:012d}', number) for image, number in
                               table['first_test_pairs'][fold]]
        elif split == 'test' and test == 'balanced1000':
            asking['count'] = 1000
        names = classes or table['prompt_names' if prompt_names else 'names']
        super().__init__(names, data_root=data_root, class_ids=class_ids, asking=asking,
                         maps=dict(dict(category_ids=table['coco_ids']), **dict(maps or {})), **kwargs)


@DATASETS.register_module()
class FSS1000Dataset(EpisodicSegDataset):
    """FSS-1000: one class per image, 520 classes in training, 240 in validation, 240 others at test.

    Args:
        split: `'train'`, `'val'` or `'test'`.
        data_root: the folder with one folder per class, each with images `1.jpg`.. and black-and-white masks `1.png`..
        **kwargs: for `EpisodicSegDataset`.

    Raises:
        UserError: unknown split.
        MissingFile: a class folder is missing.
    """

    def __init__(self, split: str, *, data_root: str = 'data/fewshot_data', **kwargs: Any) -> None:
        table = fold_table('fss1000')
        parts = {name: sorted(table[name]) for name in ('train', 'val', 'test')}
        if split not in parts:
            raise UserError(f'split must be one of {list(parts)}, got {split!r}')
        self.folders = [*parts['train'], *parts['val'], *parts['test']]
        first = dict(train=1, val=521, test=761)[split]
        super().__init__([name.replace('_', ' ') for name in self.folders], data_root=data_root,
                         data_prefix=dict(img_path='', seg_map_path=''),
                         class_ids=range(first, first + len(parts[split])), maps=dict(binary=True), **kwargs)

    def presence(self) -> dict[str, list[int]]:
        """The class of every image of the split: its folder."""
        shown: dict[str, list[int]] = {}
        for number in self.class_ids:
            folder = Path(self.data_root, self.folders[number - 1])
            if not folder.is_dir():
                raise MissingFile(f'the class folder {folder.absolute()} of FSS-1000 is missing')
            suffix = self.maps.seg_map_suffix
            masks = sorted(folder.glob(f'*{suffix}'), key=lambda path: (len(path.name), path.name))
            shown.update({f'{folder.name}/{path.name.removesuffix(suffix)}': [number] for path in masks})
        return shown
