"""The test pipeline of a config, fed with pictures from memory."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from frozenmm.compat.image_sources import NamedImage
from frozenmm.engine.explain import explained_registry_misses
from frozenmm.registry import DATASETS


class ImagePipeline:
    """What a config does with a test image, without its reading of files and annotations.

    Args:
        cfg: a config with a test or validation data loader.

    Raises:
        ValueError: it has neither, or its pipeline is empty.
    """

    def __init__(self, cfg: Config) -> None:
        self.scope = cfg.get('default_scope', 'mmdet')
        steps = _dataset(cfg).get('pipeline') or ()
        if not steps:
            raise ValueError('the config has no pipeline in test_dataloader.dataset or val_dataloader.dataset, so it '
                             'is not known how its model wants images')
        kept = [step for step in steps if not _plain(step['type']).startswith('Load')]
        self.as_float = any(step.get('to_float32', False) for step in steps)
        with DefaultScope.overwrite_default_scope(self.scope), explained_registry_misses():
            self.steps = Compose([dict(step) for step in kept])

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
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')), explained_registry_misses():
        kind = DATASETS.get(str(dataset.get('type')))
    return tuple(getattr(kind, 'METAINFO', {}).get('classes', ()))


def _dataset(cfg: Config) -> Mapping[str, Any]:
    for name in ('test_dataloader', 'val_dataloader'):
        if cfg.get(name) is not None:
            return cfg[name].get('dataset', {})
    return {}


def _plain(name: object) -> str:
    return str(name).rpartition('.')[2]
