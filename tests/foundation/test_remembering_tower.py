from __future__ import annotations

import copy

import pytest
import torch
from random_tower import RandomTower
from torch import nn

from frozenmm.foundation.remembering_tower import RememberingTower
from frozenmm.structures import ImageStats

STATS = ImageStats((10.0, ) * 3, (50.0, ) * 3)


@pytest.fixture
def images(generator):
    return torch.rand(3, 3, 32, 48, generator=generator) * 255


def _counting(tower: RememberingTower) -> list[int]:
    """Batch sizes that reach the network from now on."""
    sizes: list[int] = []
    original = tower.inner.extract

    def extract(network, pixels, tokens):
        sizes.append(len(pixels))
        return original(network, pixels, tokens)

    tower.inner.extract = extract
    return sizes


def _same(one, other):
    for name, value in one.maps.items():
        torch.testing.assert_close(value, other.maps[name], rtol=0, atol=1e-6)
    for name in 'valid', 'region', 'tokens':
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=1e-6)


@pytest.mark.parametrize('mode', ['none', 'squash', 'center_crop'])
def test_remembered_features_are_those_of_the_tower(images, mode):
    inner = RandomTower(resize_mode=mode)
    tower = RememberingTower(inner)
    sizes = [(32, 48), (24, 40), (32, 32)]
    wanted = inner(images, sizes, STATS, num_tokens=5)
    _same(tower(images, sizes, STATS, num_tokens=5), wanted)
    _same(tower(images, sizes, STATS, num_tokens=5), wanted)
    assert (tower.memory.hits, tower.memory.misses) == (3, 3)


def test_only_new_images_reach_the_network(images):
    tower = RememberingTower(RandomTower(resize_mode='none'))
    sizes = _counting(tower)
    tower(images[:2])
    tower(images)
    tower(images.flip(0))
    assert sizes == [2, 1]


@pytest.mark.parametrize('change', ['pixel', 'valid size', 'statistics', 'tokens'])
def test_whatever_decides_the_features_decides_the_lookup(images, change):
    tower = RememberingTower(RandomTower(resize_mode='none'))
    arguments = dict(images=images, valid_sizes=[(32, 48)] * 3, image_stats=STATS, num_tokens=0)
    tower(**arguments)
    sizes = _counting(tower)
    if change == 'pixel':
        arguments['images'] = images.clone()
        arguments['images'][1, 2, 31, 47] += 1e-3
    else:
        arguments |= {'valid size': dict(valid_sizes=[(32, 48), (32, 40), (32, 48)]), 'statistics':
                      dict(image_stats=ImageStats()), 'tokens': dict(num_tokens=1)}[change]
    tower(**arguments)
    assert sizes == [1 if change in ('pixel', 'valid size') else 3]


def test_bad_batches_get_the_error_of_the_tower(images):
    tower = RememberingTower(RandomTower(resize_mode='none'))
    with pytest.raises(ValueError, match='2 valid sizes for 3 images'):
        tower(images, [(32, 48)] * 2)
    with pytest.raises(ValueError, match='expects float images'):
        tower(images[0])
    assert len(tower.memory) == 0


def test_nothing_is_kept_in_eval_mode(images):
    tower = RememberingTower(RandomTower(resize_mode='none')).eval()
    tower(images)
    assert len(tower.memory) == 0


def test_the_oldest_features_go_when_memory_is_short(images):
    tower = RememberingTower(RandomTower(resize_mode='none'))
    tower(images[:1])
    tower.memory.limit = 2 * tower.memory.size
    tower(images)
    assert len(tower.memory) == 2 and tower.memory.size <= tower.memory.limit
    sizes = _counting(tower)
    tower(images[1:])
    tower(images[:1])
    assert sizes == [1]


def test_features_larger_than_the_limit_are_computed_every_time(images):
    tower = RememberingTower(RandomTower(resize_mode='none'), megabytes=1e-5)
    tower(images)
    assert len(tower.memory) == 0 and tower.memory.size == 0


def test_the_state_dict_is_that_of_the_tower_and_copies_share_network_and_memory(images):
    inner = RandomTower(resize_mode='none')
    tower = RememberingTower(inner)
    assert list(tower.state_dict()) == list(inner.state_dict())
    assert not list(tower.parameters())
    clone = copy.deepcopy(nn.ModuleList([tower]))[0]
    assert clone.memory is tower.memory and clone.network is tower.network


def test_it_takes_a_config_and_passes_options_on():
    tower = RememberingTower(dict(type='frozenmm.RandomTower', widths=(4, 6)), resize_mode='squash')
    assert tower.channels == {'c1': 4, 'c2': 6} and tower.resize_mode == tower.inner.resize_mode == 'squash'


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match='RememberingTower needs an image tower, .*got Linear'):
        RememberingTower(nn.Linear(1, 1))
    with pytest.raises(ValueError, match='megabytes must be positive, got 0'):
        RememberingTower(RandomTower(), megabytes=0)
    with pytest.raises(ValueError, match='\'through\', whose features cannot be reused'):
        RememberingTower(RandomTower(gradient='through'))
    with pytest.raises(ValueError, match='\\[\'size\'\\] must be given to the tower itself'):
        RememberingTower(RandomTower(), size=64)


def test_a_border_that_is_set_later_reaches_the_tower_inside(images):
    tower = RememberingTower(RandomTower(resize_mode='center_crop')).train()
    plain = tower(images)
    tower.compat = True
    assert tower.inner.compat
    changed = tower(images)
    _same(changed, RandomTower(resize_mode='center_crop', compat=True)(images))
    assert any((changed.maps[name] - value).abs().max() > 1e-4 for name, value in plain.maps.items())
