"""A config's data, drawn image by image."""
from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.datasets.self_made import make_missing_files
from frozenmm.engine.explain import explained_building
from frozenmm.errors import UserError
from frozenmm.registry import DATASETS, installed
from frozenmm.visualization.annotations import draw_sample


def browse(cfg: Config, folder: Path, *, stage: str = 'train', count: int = 16, start: int = 0) -> Iterator[Path]:
    """Draw images of a data loader as its pipeline gives them.

    Args:
        cfg: the config.
        folder: gets one PNG per image.
        stage: `'train'`, `'val'` or `'test'`.
        count: number of images, fewer if the data set has fewer.
        start: index of the first one.

    Yields:
        The files, as they are written.

    Raises:
        UserError: the config has no such data loader, or `start` lies behind its last image.
    """
    loader = cfg.get(f'{stage}_dataloader')
    if loader is None:
        raise UserError(f'the config has no {stage}_dataloader')
    scope = cfg.get('default_scope', 'mmdet')
    register(scope)
    with DefaultScope.overwrite_default_scope(scope), explained_building():
        make_missing_files(loader)
        dataset = DATASETS.build(loader.dataset)
        if not 0 <= start < len(dataset):
            raise UserError(f'start must be in 0..{len(dataset) - 1}, got {start}')
        classes = dataset.metainfo.get('classes', ())
        for index in range(start, min(start + count, len(dataset))):
            packed = dataset[index]
            drawn = draw_sample(packed['inputs'], packed['data_samples'], classes)
            path = folder / f'{index:06d}.png'
            write_whole(path, _png(drawn))
            yield path


def register(scope: str) -> None:
    """Make the classes of mmdet or mmseg known, so that configs of that scope can be built."""
    if scope == 'mmdet' and installed('mmdet'):
        from mmdet.utils import register_all_modules
        register_all_modules(init_default_scope=False)
    elif scope == 'mmseg' and installed('mmseg'):
        from mmseg.utils import register_all_modules as register_mmseg
        register_mmseg(init_default_scope=False)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    require('PIL.Image', 'writing images').fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()
