"""The tower that adds text vectors to the maps of EfficientNet-Lite0."""
from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from frozenmm.errors import MissingPackage
from frozenmm.foundation.conse import ConSE
from frozenmm.foundation.conse_tower import ConSETower
from frozenmm.foundation.feature_cache import CachedTower, recipe_of
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.registry import MODELS


@pytest.fixture(scope='module')
def made(minilm, tmp_path_factory):
    """A tower, and the plain network with the plain rule."""
    pytest.importorskip('timm')
    patch = pytest.MonkeyPatch()
    patch.setenv('FROZENMM_HOME', str(tmp_path_factory.mktemp('home')))
    try:
        tower = ConSETower(text_tower=minilm, out_maps=['res4', 'res5', 'text'], resize_mode='none')
        yield tower, ConSE(EfficientNetLiteTower(resize_mode='none'), minilm)
    except MissingPackage as error:
        pytest.skip(str(error))
    finally:
        patch.undo()


@pytest.fixture
def images(generator):
    return 255 * torch.rand(2, 3, 64, 96, generator=generator)


def test_the_text_map_is_the_rule_at_every_cell(made, images):
    tower, conse = made
    found, plain = tower(images), conse.image_tower(images)
    assert list(found.maps) == ['res4', 'res5', 'text'] == list(tower.channels)
    assert tower.channels == {'res4': 112, 'res5': 320, 'text': 384} and tower.strides['text'] == 32
    for name in 'res4', 'res5':
        assert torch.equal(found.map(name), plain.map(name))
    assert_close(found.map('text'), conse.dense(plain.map('res5')))
    assert_close(found.map('text').norm(dim=1), torch.ones(2, 2, 3))


def test_a_checkpoint_records_the_image_network_once_and_no_vectors(made):
    tower, conse = made
    assert list(tower.state_dict()) == ['frozen_record'] and not list(tower.parameters())
    assert tower.fingerprint == conse.image_tower.fingerprint
    clone = copy.deepcopy(tower)
    assert clone.network is tower.network


def test_a_cache_keeps_the_text_map_and_knows_the_text_network(made, images, tmp_path):
    tower, _ = made
    cached = CachedTower(tower, tmp_path)
    first, second = cached(images), cached(images)
    assert cached.hits == 2 and all(torch.equal(first.map(name), second.map(name)) for name in tower.channels)
    recipe = recipe_of(tower)
    assert recipe['text_network'] == dict(name=tower._conse.text_tower.name,
                                          fingerprint=tower._conse.text_tower.fingerprint)
    assert recipe['top_k'] == 10 and recipe['inner']['tower'] == 'EfficientNetLiteTower'
    cached.cache.close()
    other = ConSETower(tower.inner, tower._conse.text_tower, top_k=3, out_maps=['res4', 'res5', 'text'])
    with pytest.raises(ValueError, match='top_k: 10 in the cache, 3 in the config'):
        CachedTower(other, tmp_path)


def test_only_the_maps_asked_for_come_back(made, images):
    tower = ConSETower(text_tower=made[0]._conse.text_tower, out_maps=['text'], resize_mode='none')
    assert list(tower(images).maps) == ['text'] and list(tower.channels) == ['text']
    plain = ConSETower(text_tower=made[0]._conse.text_tower, out_maps=['res4'], resize_mode='none')
    assert list(plain(images).maps) == ['res4']


def test_it_is_a_backbone_like_any_tower(made, images):
    backbone = MODELS.build(dict(type='frozenmm.FrozenBackbone', tower=made[0], image_stats=dict(
        mean=[0.0] * 3, std=[1.0] * 3, channel_order='rgb')))
    assert [tuple(value.shape[1:]) for value in backbone(images)] == [(112, 4, 6), (320, 2, 3), (384, 2, 3)]


def test_unfit_arguments_are_named(made):
    text = made[0]._conse.text_tower
    with pytest.raises(ValueError, match=r"has no maps \['res6'\]; it gives .*'text'"):
        ConSETower(text_tower=text, out_maps=['res6'])
    with pytest.raises(TypeError, match='needs an EfficientNetLiteTower, got CLIPTower'):
        ConSETower(dict(type='frozenmm.CLIPTower', weights='random', model=dict(
            input_resolution=32, patch_size=8, width=16, layers=1, heads=2, output_dim=12), out_maps=['patch']), text)
    with pytest.raises(ValueError, match=r"does not return the maps \['res5'\]; add them to its out_maps"):
        ConSETower(EfficientNetLiteTower(out_maps=['res4']), text, out_maps=['text'])
    with pytest.raises(ValueError, match='top_k must be in'):
        ConSETower(text_tower=text, top_k=0)
