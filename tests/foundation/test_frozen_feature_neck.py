from __future__ import annotations

import copy

import pytest
import torch
from mmengine.model import BaseModel
from random_tower import STATS
from torch import nn

from frozenmm.errors import UserError
from frozenmm.foundation.frozen_backbone import FrozenBackbone
from frozenmm.foundation.frozen_feature_neck import FrozenFeatureNeck

TOWER = dict(type='frozenmm.RandomTower')
PREPROCESSOR = dict(type='ImgDataPreprocessor', mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True)


class PlainNeck(nn.Module):
    """Two levels, strides 8 and 16."""

    def __init__(self, names=True):
        super().__init__()
        if names:
            self.num_outs, self.out_channels = 2, 6
        self.lateral = nn.ModuleList(nn.Conv2d(width, 6, 1) for width in (8, 12))

    def forward(self, inputs):
        return [layer(x) for layer, x in zip(self.lateral, inputs)]


class Model(BaseModel):

    def __init__(self, neck, data_preprocessor=PREPROCESSOR):
        super().__init__(data_preprocessor)
        self.backbone = FrozenBackbone(dict(TOWER, seed=3))
        self.neck = neck

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.neck(self.backbone(inputs))


def build(tower=TOWER, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model(FrozenFeatureNeck(PlainNeck(), tower, **options))


def open_gates(model, generator):
    """Random values in place of the neutral start."""
    for fusion in model.neck.fusions:
        for parameter in fusion.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)


@pytest.fixture
def images(generator):
    return torch.rand(2, 3, 48, 64, generator=generator)


@pytest.mark.parametrize('fusion', ['add', 'concat'])
def test_it_starts_as_the_plain_neck(fusion, images):
    model = build(fusion=fusion)
    model.init_weights()
    plain = model.neck.neck(model.backbone(images))
    assert all(torch.equal(x, y) for x, y in zip(model(images), plain))


@pytest.mark.parametrize('fusion', ['add', 'concat'])
def test_the_image_matters_once_the_gate_opens(fusion, images, generator):
    model = build(fusion=fusion)
    open_gates(model, generator)
    maps = model.backbone(images)
    for x, y in zip(model.neck(maps), model.neck(maps, images.flip(0))):
        assert (x - y).abs().max() > 1e-3


@pytest.mark.parametrize('fusion', ['add', 'concat'])
def test_the_gate_learns_from_the_first_step(fusion, images):
    model = build(fusion=fusion)
    sum(x.square().sum() for x in model(images)).backward()
    for module in model.neck.fusions:
        opened = module.gate if fusion == 'add' else module.mix.weight
        assert opened.grad.abs().sum() > 0
        assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize('mode', ['none', 'squash', 'pad', 'center_crop'])
def test_the_frozen_map_lies_where_the_image_shows_it(mode, generator):
    """A change of the image changes the levels there and not far away."""
    model = build(dict(TOWER, widths=(8, ), stride=4, size=64, resize_mode=mode), levels=[0])
    open_gates(model, generator)
    images = torch.zeros(1, 3, 128, 128)
    maps = model.backbone(images)
    changed = images.clone()
    changed[..., 80:88, 40:48] = 3.0
    difference = model.neck(maps)[0] - model.neck(maps, changed)[0]
    heat = difference.abs().sum((0, 1))
    rows, columns = (heat > 0.05 * heat.max()).nonzero().unbind(1)
    assert heat.max() > 1e-3
    assert 9 <= rows.min() and rows.max() <= 11 and 4 <= columns.min() and columns.max() <= 6


def test_levels_left_out_are_untouched(images, generator):
    model = build(levels=[1])
    open_gates(model, generator)
    plain = model.neck.neck(model.backbone(images))
    first, second = model(images)
    assert torch.equal(first, plain[0])
    assert not torch.equal(second, plain[1])


def test_each_level_may_take_its_own_map():
    model = build(maps=['c1', 'c2'])
    assert [fusion.project.in_channels for fusion in model.neck.fusions] == [8, 12]


def test_one_batch_after_another_never_mixes(images, generator):
    model = build()
    open_gates(model, generator)
    alone = model(images[:1])
    model(images.flip(0))
    for x, y in zip(model(images[:1]), alone):
        assert torch.equal(x, y)


def test_a_copied_model_works_alone(images, generator):
    model = build()
    open_gates(model, generator)
    twin = copy.deepcopy(model)
    for x, y in zip(twin(images), model(images)):
        assert torch.equal(x, y)
    assert twin.neck.tower.network is model.neck.tower.network


def test_the_state_dict_holds_the_fusions_and_a_record_of_the_tower():
    names = set(build().neck.state_dict())
    assert {name for name in names if name.startswith('tower')} == {'tower.frozen_record'}
    assert 'fusions.0.gate' in names and 'neck.lateral.0.weight' in names


def test_maps_without_their_image_are_refused(images):
    model = build()
    maps = model.backbone(images)
    model.neck(maps)
    with pytest.raises(UserError, match='got feature maps without the image'):
        model.neck(maps)  # the image was of one forward


def test_outside_a_model_it_works_with_stated_statistics(images):
    neck = FrozenFeatureNeck(PlainNeck(), TOWER, image_stats=STATS)
    maps = FrozenBackbone(TOWER, image_stats=STATS)(images)
    assert len(neck(maps, images)) == 2
    unknown = FrozenFeatureNeck(PlainNeck(), TOWER)
    with pytest.raises(ValueError, match='without the image'):
        unknown(maps, images)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(fusion='mul'), r'fusion must be one of \[.add., .concat.\]'),
    (dict(levels=[0, 2]), r'levels must choose among 0\.\.1'),
    (dict(levels=[0, 0]), 'each once'),
    (dict(levels=[]), r'levels must choose among 0\.\.1'),
    (dict(maps='res9'), r'RandomTower has no maps \[.res9.\]; it gives'),
    (dict(maps=['c1']), '1 maps for 2 levels'),
])
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FrozenFeatureNeck(PlainNeck(), TOWER, **options)


def test_a_neck_that_hides_its_sizes_needs_them_stated():
    with pytest.raises(ValueError, match='PlainNeck does not say its num_outs; give num_levels='):
        FrozenFeatureNeck(PlainNeck(names=False), TOWER, out_channels=6)
    with pytest.raises(ValueError, match='PlainNeck does not say its out_channels; give out_channels='):
        FrozenFeatureNeck(PlainNeck(names=False), TOWER, num_levels=2)


def test_a_neck_that_breaks_its_promise_is_refused(images):
    model = Model(FrozenFeatureNeck(PlainNeck(), TOWER, num_levels=3))
    with pytest.raises(ValueError, match='PlainNeck returned 2 levels, expected 3'):
        model(images)


def test_a_model_without_backbone_is_refused():
    model = BaseModelWithoutBackbone(PREPROCESSOR)
    with pytest.raises(ValueError, match='BaseModelWithoutBackbone has no backbone'):
        model.neck = FrozenFeatureNeck(PlainNeck(), TOWER)


class BaseModelWithoutBackbone(BaseModel):

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs
