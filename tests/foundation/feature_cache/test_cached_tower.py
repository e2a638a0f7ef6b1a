"""A tower that reads its features from disk gives what the tower gives, and refuses what does not fit."""
from __future__ import annotations

import copy

import pytest
import torch
from random_tower import RandomTower

from frozenmm.foundation import feature_cache
from frozenmm.foundation.feature_cache import CachedTower, image_key, recipe_of
from frozenmm.foundation.frozen_backbone import FrozenBackbone
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

STATS = ImageStats((10.0, ) * 3, (50.0, ) * 3)


@pytest.fixture
def images(generator):
    return torch.rand(3, 3, 32, 48, generator=generator) * 255


def same(one, other):
    for name, value in one.maps.items():
        assert torch.equal(value, other.maps[name])
    for name in 'valid', 'region', 'tokens', 'class_token':
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize('mode', ['none', 'squash', 'center_crop', 'pad'])
@pytest.mark.parametrize('num_tokens', [0, 5])
def test_features_read_from_disk_are_those_of_the_tower_bit_for_bit(images, tmp_path, mode, num_tokens):
    inner = RandomTower(resize_mode=mode)
    sizes = [(32, 48), (24, 40), (32, 32)]
    wanted = inner(images, sizes, STATS, num_tokens=num_tokens)
    first = CachedTower(inner, tmp_path / 'cache')
    same(first(images, sizes, STATS, num_tokens=num_tokens), wanted)
    same(first(images, sizes, STATS, num_tokens=num_tokens), wanted)
    assert (first.hits, first.misses) == (3, 3)
    first.cache.close()
    later = CachedTower(RandomTower(resize_mode=mode), tmp_path / 'cache', mode='read').eval()
    later.inner.extract = None  # a forward pass would fail
    same(later(images, sizes, STATS, num_tokens=num_tokens), wanted)
    assert list(later(images[:1], sizes[:1], STATS, num_tokens=num_tokens).maps) == list(inner.channels)


def test_padding_beside_a_larger_image_changes_nothing_when_the_tower_does_not_see_it(images, tmp_path):
    tower = CachedTower(RandomTower(resize_mode='squash'), tmp_path)
    tower(images[:1, :, :24, :40])
    tower(images[:1], [(24, 40)])
    assert (tower.hits, tower.misses) == (1, 1)
    sees = CachedTower(RandomTower(resize_mode='none'), tmp_path / 'none')
    sees(images[:1, :, :24, :40])
    sees(images[:1], [(24, 40)])
    assert (sees.hits, sees.misses) == (0, 2)


@pytest.mark.parametrize('change', ['pixel', 'valid size', 'statistics', 'tokens'])
def test_whatever_decides_the_features_decides_the_lookup(images, tmp_path, change):
    tower = CachedTower(RandomTower(resize_mode='none'), tmp_path)
    arguments = dict(images=images, valid_sizes=[(32, 48)] * 3, image_stats=STATS, num_tokens=0)
    tower(**arguments)
    if change == 'pixel':
        arguments['images'] = images.clone()
        arguments['images'][1, 2, 31, 47] += 1e-3
    else:
        arguments |= {'valid size': dict(valid_sizes=[(32, 48), (32, 40), (32, 48)]), 'statistics':
                      dict(image_stats=ImageStats()), 'tokens': dict(num_tokens=1)}[change]
    tower(**arguments)
    assert tower.misses == 3 + (1 if change in ('pixel', 'valid size') else 3)


def test_half_precision_takes_half_the_disk_and_rounds_the_first_time_too(images, tmp_path):
    towers = {store: CachedTower(RandomTower((64, 64)), tmp_path / store, store=store) for store in ('fp32', 'bf16')}
    first = {store: tower(images) for store, tower in towers.items()}
    for tower in towers.values():
        tower.cache.flush()
    assert towers['bf16'].cache.size < 0.75 * towers['fp32'].cache.size
    same(towers['bf16'](images), first['bf16'])
    assert first['bf16'].maps['c1'].dtype == torch.float32
    torch.testing.assert_close(first['bf16'].maps['c1'], first['fp32'].maps['c1'], rtol=1e-2, atol=1e-2)


def test_eight_bits_take_a_quarter_and_err_by_half_a_step_of_every_channel(images, tmp_path):
    sizes = {}
    for store in 'fp32', 'int8':
        cached = CachedTower(RandomTower((64, 64)), tmp_path / store, store=store)
        first = cached(images)
        cached.cache.close()
        again = CachedTower(RandomTower((64, 64)), tmp_path / store, store=store)(images)
        same(again, first)
        sizes[store] = cached.cache.size
        if store == 'fp32':
            exact = first
    assert sizes['int8'] < 0.4 * sizes['fp32']  # small maps: scales and names weigh much
    for name, value in exact.maps.items():
        step = value.abs().amax((2, 3), keepdim=True) / 127
        assert ((first.maps[name] - value).abs() <= 0.5 * step + 1e-6).all()
        assert not torch.equal(first.maps[name], value)


@pytest.mark.parametrize(('change', 'message'), [
    (dict(seed=1), "fingerprint: '[0-9a-f]{16}' in the cache, '[0-9a-f]{16}' in the config"),
    (dict(resize_mode='squash'), "resize_mode: 'none' in the cache, 'squash' in the config"),
    (dict(size=32), 'size: 64 in the cache, 32 in the config'),
    (dict(out_maps=['c2']), r'channels.c1: 8 in the cache, None in the config'),
    (dict(quantise=True), 'quantise: False in the cache, True in the config'),
])
def test_a_cache_of_another_tower_is_refused_with_the_difference_named(images, tmp_path, change, message):
    options = dict(resize_mode='none')
    CachedTower(RandomTower(**options), tmp_path)
    with pytest.raises(ValueError, match=f'(?s)does not fit this config.*{message}'):
        CachedTower(RandomTower(**options | change), tmp_path)
    with pytest.raises(ValueError, match="store: 'fp32' in the cache, 'bf16' in the config"):
        CachedTower(RandomTower(**options), tmp_path, store='bf16')


def test_an_image_that_is_missing_is_refused_in_read_mode(images, tmp_path):
    tower = CachedTower(RandomTower(), tmp_path)
    tower(images[:1])
    tower.cache.close()
    reading = CachedTower(RandomTower(), tmp_path, mode='read')
    with pytest.raises(ValueError, match=r'(?s)2 of 3 images .* are not in the feature cache .*\(1 entries\).*fill it'):
        reading(images)


def test_off_touches_no_disk(images, tmp_path):
    tower = CachedTower(RandomTower(), tmp_path / 'cache', mode='off')
    same(tower(images), RandomTower()(images))
    assert not (tmp_path / 'cache').exists()


def test_training_goes_on_when_the_quota_is_used_up(images, tmp_path, caplog):
    tower = CachedTower(RandomTower(), tmp_path, quota_gb=2e-5, shard_mb=1e-3)
    wanted = RandomTower()(torch.cat([images] * 8) + torch.arange(24.0)[:, None, None, None])
    for start in range(0, 24, 3):
        tower(images + torch.arange(start, start + 3.0)[:, None, None, None])
    assert tower.mode == 'full' and 0 < tower.cache.size <= tower.cache.quota
    again = torch.cat([tower(images + torch.arange(start, start + 3.0)[:, None, None, None]).maps['c1']
                       for start in range(0, 24, 3)])
    torch.testing.assert_close(again, wanted.maps['c1'], rtol=0, atol=1e-6)
    assert 0 < tower.hits < 24


def test_the_tool_gets_an_error_instead(images, tmp_path):
    tower = CachedTower(RandomTower(), tmp_path, quota_gb=1e-6, shard_mb=1e-3)
    tower.full_is_error = True
    with pytest.raises(feature_cache.CacheFull, match=r'(?s)no room for a shard.*its quota is .*run the same command'):
        tower(images)


def test_a_config_line_puts_it_into_a_model_and_the_checkpoint_does_not_notice(images, tmp_path):
    tower = dict(type='frozenmm.RandomTower')
    stats = dict(mean=[0.0] * 3, std=[1.0] * 3, channel_order='rgb')
    plain = MODELS.build(dict(type='frozenmm.FrozenBackbone', tower=tower, image_stats=stats))
    cached = MODELS.build(dict(type='frozenmm.FrozenBackbone', image_stats=stats, tower=dict(
        type='frozenmm.CachedTower', folder=str(tmp_path), tower=tower)))
    assert isinstance(cached, FrozenBackbone) and cached.tower.resize_mode == 'none'
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(plain(images), cached(images)))
    assert cached.tower.hits == 3
    assert list(plain.state_dict()) == list(cached.state_dict()) and not list(cached.tower.parameters())
    clone = copy.deepcopy(cached)
    assert clone.tower.cache is cached.tower.cache and clone.tower.network is cached.tower.network


def test_bad_batches_get_the_error_of_the_tower(images, tmp_path):
    tower = CachedTower(RandomTower(), tmp_path)
    with pytest.raises(ValueError, match='2 valid sizes for 3 images'):
        tower(images, [(32, 48)] * 2)
    with pytest.raises(ValueError, match='num_tokens must be one of'):
        tower(images, num_tokens=3)
    images[0, 0, 0, 0] = float('nan')
    with pytest.raises(ValueError, match='NaN or infinite'):
        tower(images)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(mode='write'), 'mode must be one of'),
    (dict(store='int4'), 'store must be one of'),
    (dict(quota_gb=0), 'quota and shard size must be positive'),
    (dict(shard_mb=0), 'quota and shard size must be positive'),
    (dict(size=64), r"\['size'\] must be given to the tower itself when CachedTower gets a built one"),
])
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        CachedTower(RandomTower(), tmp_path, **arguments)


def test_a_tower_with_gradient_cannot_be_cached(tmp_path):
    with pytest.raises(ValueError, match='whose features cannot be reused'):
        CachedTower(RandomTower(gradient='through'), tmp_path)


def test_an_option_that_cannot_be_compared_is_refused():
    tower = RandomTower()
    tower.rule = object()
    with pytest.raises(TypeError, match='RandomTower.rule is a object; what decides features must be plain data'):
        recipe_of(tower)


def test_every_tower_family_has_a_recipe():
    towers = [dict(type='CLIPTower', weights='random', patch_output='projected', model=dict(
        input_resolution=32, patch_size=8, width=16, layers=1, heads=2, output_dim=12)),
        dict(type='EfficientNetLiteTower', weights='random'),
        dict(type='TimmTower', model='resnet18', weights='random')]
    recipes = [recipe_of(MODELS.build(tower)) for tower in towers]
    assert recipes[0]['patch_output'] == 'projected'
    assert len({recipe['fingerprint'] for recipe in recipes}) == 3


def test_keys_stay_those_of_caches_that_users_have():
    image = torch.arange(27.0).view(3, 3, 3)
    assert image_key(image, (3, 2), None, 5, padding_counts=False) == '626c5b10649c0aaad7d1df9f81d37d8e'
