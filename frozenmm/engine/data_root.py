"""Another data set under the same config: any folder in COCO layout."""
from __future__ import annotations

import json
import os
from pathlib import Path

from mmengine.config import Config

from frozenmm.errors import MissingFile, reading

VARIABLE = 'FROZENMM_DATA_ROOT'
_LOADERS = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'val'}


def use_data_root(cfg: Config, root: str | Path) -> None:
    """Point a detection config at a folder in COCO layout, in place; classes come from its annotation file.

    The folder holds `annotations/instances_{train,val}.json` and `images/{train,val}/`, or COCO's own names
    (`instances_{train,val}2017.json`, `{train,val}2017/`). Every `num_classes` of the model is set to its number of
    categories. A loader takes the split that its data set names (`split`, or a `train` in its `ann_file`), else that of
    the loader's own name.

    Args:
        cfg: a config with mmdet data loaders.
        root: the folder.

    Raises:
        MissingFile: the folder or an annotation file is missing; the text names what was looked for.
        UnreadableFile: an annotation file that is no COCO file.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise MissingFile(f'the data folder {root.resolve()} does not exist (from data_root or {VARIABLE})')
    names: list[str] = []
    for loader, split in _LOADERS.items():
        if cfg.get(loader) is None:
            continue
        dataset = _innermost(cfg[loader].dataset)
        annotations, images = _find(root, _split_of(dataset, split))
        if not names:
            names = _category_names(root / annotations)
        for key in ('split', 'settings'):
            dataset.pop(key, None)
        dataset.update(type='mmdet.CocoDataset', data_root=str(root), ann_file=annotations,
                       data_prefix=dict(img=images), metainfo=dict(classes=tuple(names)))
        evaluator = cfg.get(loader.replace('dataloader', 'evaluator'))
        if evaluator is not None:
            for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
                if metric.get('ann_file') is not None:
                    metric.ann_file = str(root / annotations)
    cfg.data_root = str(root)
    _set_num_classes(cfg.model, len(names))


def requested_data_root(options: dict[str, object]) -> str | None:
    """The folder that the user asks for: `data_root` among the options, else the environment variable, else None."""
    value = options.get('data_root') or os.environ.get(VARIABLE)
    return None if value is None else str(value)


def _find(root: Path, split: str) -> tuple[str, str]:
    """Annotation file and image folder of a split, relative to the root."""
    for year in ('', '2017'):
        annotations = f'annotations/instances_{split}{year}.json'
        for images in (f'images/{split}{year}/', f'{split}{year}/'):
            if (root / annotations).is_file() and (root / images).is_dir():
                return annotations, images
    raise MissingFile(
        f'{root.resolve()} is not in COCO layout: neither annotations/instances_{split}.json with images/{split}/ nor '
        f'annotations/instances_{split}2017.json with {split}2017/ is there')


def _split_of(dataset: Config, default: str) -> str:
    """`'train'` or `'val'`: a validation loader may read training images on purpose."""
    if 'split' in dataset:
        return dataset['split']
    return 'train' if 'train' in Path(dataset.get('ann_file') or '').name else default


def _category_names(path: Path) -> list[str]:
    with reading(path, 'a COCO annotation file'):
        return [str(category['name']) for category in json.loads(path.read_text(encoding='utf-8'))['categories']]


def _innermost(dataset: Config) -> Config:
    """The data set below wrappers such as RepeatDataset."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def _set_num_classes(node: object, count: int) -> None:
    if isinstance(node, dict):
        if 'num_classes' in node:
            node['num_classes'] = count
        for value in node.values():
            _set_num_classes(value, count)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _set_num_classes(value, count)
