"""The test pipeline of a config, fed with pictures from memory."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

from frozenmm.apis.coco_entries import AnnotationIds
from frozenmm.compat.image_sources import NamedImage
from frozenmm.engine.explain import explained_building
from frozenmm.errors import UserError
from frozenmm.registry import DATASETS


class ImagePipeline:
    """What a test pipeline does with an image, without its reading of files and annotations.

    Left out are transforms whose name begins with `Load`, and those of a class with `needs_annotations = True`.

    Args:
        steps: configs of the transforms.
        scope: where names without scope are looked up.

    Raises:
        UserError: a transform that cannot be built.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]], scope: str = 'mmdet') -> None:
        self.as_float = any(step.get('to_float32', False) for step in steps)
        with DefaultScope.overwrite_default_scope(scope), explained_building():
            self.steps = Compose([dict(step) for step in steps if not _reads(step['type'])])

    @classmethod
    def of_config(cls, cfg: Config, *, otherwise: Sequence[Mapping[str, Any]] = ()) -> ImagePipeline:
        """That of a config's test data set, or else of its validation data set.

        Args:
            cfg: the config.
            otherwise: steps for a config without data sets.

        Raises:
            UserError: it has neither, or their pipeline is empty.
        """
        steps = _dataset(cfg).get('pipeline') or otherwise
        if not steps:
            raise UserError('the config has no pipeline in test_dataloader.dataset or val_dataloader.dataset, so it '
                            'is not known how its model wants images')
        return cls(steps, cfg.get('default_scope', 'mmdet'))

    def __call__(self, image: NamedImage) -> dict[str, Any]:
        """`inputs` (3, H, W) and `data_samples` of one picture, as the model's `test_step` takes them."""
        height, width = image.pixels.shape[:2]
        pixels = np.ascontiguousarray(image.pixels[..., ::-1], np.float32 if self.as_float else np.uint8)
        return self.steps(dict(img=pixels, img_path=image.path or image.name, img_id=image.name,
                               img_shape=(height, width), ori_shape=(height, width), seg_fields=[]))


def batch_of(prepared: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The batch that `test_step` takes."""
    return dict(inputs=[item['inputs'] for item in prepared], data_samples=[item['data_samples'] for item in prepared])


def class_names(cfg: Config, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names of a detector: those of its checkpoint, else of the config's data set, else of that data set's type.

    Returns:
        The names; empty if nothing says them.
    """
    stated = meta.get('dataset_meta')
    if isinstance(stated, Mapping) and (stated.get('classes') or stated.get('CLASSES')):
        return tuple(stated.get('classes') or stated.get('CLASSES') or ())
    if meta.get('classes'):
        return tuple(meta['classes'])
    dataset = _dataset(cfg)
    own = (dataset.get('metainfo') or {}).get('classes')
    if own:
        return (own, ) if isinstance(own, str) else tuple(own)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')), explained_building():
        kind = DATASETS.get(str(dataset.get('type')))
    return tuple(getattr(kind, 'METAINFO', {}).get('classes', ()))


def category_ids(cfg: Config, meta: Mapping[str, Any], classes: Sequence[str]) -> dict[str, int] | None:
    """Category ids of a detector's classes: those of its checkpoint, else those of the annotation file of its config.

    Returns:
        Name -> id; None if nothing says them.
    """
    stated = (meta.get('dataset_meta') or {}).get('category_ids')
    if stated and len(stated) == len(classes):
        return {name: int(number) for name, number in zip(classes, stated)}
    dataset = _dataset(cfg)
    file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if not classes or file.suffix != '.json' or not file.is_file():
        return None
    known = AnnotationIds.read(file).categories
    return dict(known) if set(classes) <= set(known) else None


def _dataset(cfg: Config) -> Mapping[str, Any]:
    for name in ('test_dataloader', 'val_dataloader'):
        if cfg.get(name) is not None:
            return cfg[name].get('dataset', {})
    return {}


def _reads(kind: str | type) -> bool:
    """Whether a transform reads what a picture in memory has already, or annotations, which it lacks."""
    name = kind if isinstance(kind, str) else kind.__name__
    found = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
    return name.rpartition('.')[2].startswith('Load') or bool(getattr(found, 'needs_annotations', False))
