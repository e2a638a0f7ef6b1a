"""Segmentors made of tiny frozen parts."""
from __future__ import annotations

import pytest
import torch
from mmseg.structures import SegDataSample
from tiny_dense_clip import CLIP, PARTS, PREPROCESSOR, TEXT

import frozenmm  # noqa: F401  (fills the holes of the installation before mmseg is imported)


@pytest.fixture(scope='session')
def segmentor():
    """Builds a tiny segmentor of a method."""
    from frozenmm.registry import MODELS

    def build(method='naclip', **options):
        name = method if isinstance(method, str) else method['name']
        config = dict(type='DenseCLIPSegmentor', tower=CLIP, text_tower=TEXT, vocabulary=['sky', 'cat, kitten', 'dog'],
                      method=method, data_preprocessor=PREPROCESSOR)
        return MODELS.build({**config, **PARTS.get(name, {}), **options}).eval()

    return build


@pytest.fixture()
def picture():
    """An image (3, 40, 56) BGR in 0..255 and its data sample."""
    pixels = torch.randint(0, 256, (3, 40, 56), generator=torch.Generator().manual_seed(0)).float()
    return pixels, SegDataSample(metainfo=dict(img_shape=(40, 56), ori_shape=(50, 70)))
