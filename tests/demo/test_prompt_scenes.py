"""Scenes for prompts: objects and shapes, and the region of every pixel."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from frozenmm.demo.prompt_scenes import PromptScenes
from frozenmm.demo.scenes.shapes import SHAPES, filling, paint_shapes, shape


def test_scenes_depend_on_seed_split_and_index_alone():
    one, other = PromptScenes('train', 4, size=64), PromptScenes('train', 9, size=64)
    assert torch.equal(one[3]['inputs'], other[3]['inputs']) and torch.equal(one[2]['regions'], other[2]['regions'])
    assert not torch.equal(one[3]['inputs'], PromptScenes('val', 4, size=64)[3]['inputs'])
    assert not torch.equal(one[3]['inputs'], PromptScenes('train', 4, size=64, seed=1)[3]['inputs'])
    assert one[1]['inputs'] is one[1]['inputs']  # painted once


def test_items_are_pictures_with_a_region_for_every_pixel():
    data = PromptScenes('val', 2, size=96)
    for index in range(len(data)):
        item = data[index]
        assert item['inputs'].shape == (3, 96, 96) and item['inputs'].dtype == torch.uint8
        assert item['regions'].shape == (96, 96) and item['regions'].max() >= 1 and item['index'] == index


def test_impossible_scenes_are_refused():
    with pytest.raises(ValueError, match=r"split must be one of \['train', 'val'\], got 'test'"):
        PromptScenes('test', 1)
    with pytest.raises(ValueError, match='at least 1 scene of 64 pixels is needed, got count=1, size=32'):
        PromptScenes('train', 1, size=32)
    with pytest.raises(IndexError, match='scene 2 of 2'):
        PromptScenes('train', 2)[2]


@pytest.mark.parametrize('kind', SHAPES)
def test_shapes_have_all_sizes(kind):
    rng = np.random.default_rng(0)
    areas = [shape(kind, 100, rng).mean() for _ in range(40)]
    assert min(areas) < 0.02 and max(areas) > 0.05 and max(areas) < 0.5


def test_unknown_shapes_are_refused():
    with pytest.raises(ValueError, match="no shape 'cube'"):
        shape('cube', 64, np.random.default_rng(0))


def test_regions_differ_in_their_fillings():
    image, regions = paint_shapes('train', 96, (4, 4), np.random.default_rng(5))
    colours = np.stack([image[regions == number].mean(0) for number in np.unique(regions)])
    assert 4 <= len(colours) <= 7 and np.linalg.norm(colours[0] - colours[1:], axis=1).min() > 5


def test_fillings_are_pictures():
    rng = np.random.default_rng(0)
    made = [filling('val', 64, rng) for _ in range(24)]
    assert all(piece.shape == (64, 64, 3) and piece.dtype == np.uint8 for piece in made)
    assert min(piece.std() for piece in made) < 60 < max(piece.std() for piece in made)
