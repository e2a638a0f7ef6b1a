from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModel
from random_tower import STATS, RandomTower
from torch import nn

import frozenmm
from frozenmm.foundation.feature_pyramid import SimpleFeaturePyramid
from frozenmm.foundation.frozen_backbone import FrozenBackbone
from frozenmm.registry import MODELS

TOWER = dict(type='frozenmm.RandomTower')
PREPROCESSOR = dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                    bgr_to_rgb=True)


class Model(BaseModel):

    def __init__(self, backbone, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


def backbone(**options):
    return FrozenBackbone(TOWER, image_stats=STATS, **options)


def test_it_is_found_by_name_where_users_look():
    assert frozenmm.FrozenBackbone is FrozenBackbone
    assert MODELS.get('frozenmm.FrozenBackbone') is FrozenBackbone


def test_an_unknown_attribute_of_the_package_is_refused():
    with pytest.raises(AttributeError, match='frozenmm has no attribute \'FrozenBakcbone\''):
        _ = frozenmm.FrozenBakcbone


@pytest.mark.parametrize('size', [(64, 96), (100, 70), (33, 47)])
def test_maps_have_the_sizes_of_a_plain_backbone(size, generator):
    maps = backbone()(torch.rand(2, 3, *size, generator=generator))
    expected = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in (8, 16)]
    assert [x.shape[-2:] for x in maps] == expected
    assert [x.shape[1] for x in maps] == backbone().out_channels == [8, 12]


def test_maps_are_those_of_the_network_itself(generator):
    module = backbone()
    x = torch.rand(1, 3, 64, 64, generator=generator)
    network = module.tower.network
    first = network['c1'](x)
    torch.testing.assert_close(module(x)[0], first)
    torch.testing.assert_close(module(x)[1], network['c2'](first))


def test_out_indices_choose_and_order_maps(generator):
    x = torch.rand(1, 3, 32, 32, generator=generator)
    both, second = backbone()(x), backbone(out_indices=[1])
    assert second.out_channels == [12] and second.strides == [16]
    assert torch.equal(second(x)[0], both[1])


def test_normalisation_of_the_model_reaches_the_tower(generator):
    pixels = (torch.rand(1, 3, 32, 32, generator=generator) * 255).round()  # BGR
    model = Model(dict(type='frozenmm.FrozenBackbone', tower=TOWER), PREPROCESSOR)
    batch = model.data_preprocessor(dict(inputs=[pixels[0].to(torch.uint8)]))['inputs']
    stated = backbone()((pixels.flip(1) - 127) / 128)
    torch.testing.assert_close(model(batch), stated, rtol=1e-4, atol=1e-4)


def test_outside_a_model_the_statistics_must_be_stated():
    with pytest.raises(ValueError, match='cannot know how its images were normalised'):
        FrozenBackbone(TOWER)(torch.zeros(1, 3, 32, 32))


def test_statistics_that_contradict_the_model_are_refused_when_it_is_built():
    stats = dict(mean=[0, 0, 0], std=[1, 1, 1], channel_order='rgb')
    with pytest.raises(ValueError, match='FrozenBackbone was told'):
        Model(dict(type='frozenmm.FrozenBackbone', tower=TOWER, image_stats=stats), PREPROCESSOR)


@pytest.mark.parametrize('resize_mode', ['none', 'squash', 'pad', 'center_crop'])
@pytest.mark.parametrize('stride', [14, 16])
def test_pyramid_has_the_sizes_of_its_strides(resize_mode, stride, generator):
    module = FrozenBackbone(dict(TOWER, widths=(6, ), stride=stride, resize_mode=resize_mode), image_stats=STATS,
                            pyramid=dict(strides=[4, 8, 16, 32], channels=10))
    maps = module(torch.rand(1, 3, 100, 72, generator=generator))
    assert [tuple(x.shape) for x in maps] == [(1, 10, 25, 18), (1, 10, 13, 9), (1, 10, 7, 5), (1, 10, 4, 3)]
    assert module.out_channels == [10] * 4 and module.strides == [4, 8, 16, 32]


def test_pyramid_learns_and_the_tower_does_not(generator):
    module = backbone(pyramid=dict(strides=[8, 32], channels=4))
    before = {name: value.clone() for name, value in module.tower.network.state_dict().items()}
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    sum(x.square().sum() for x in module(torch.rand(2, 3, 64, 64, generator=generator))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.pyramid.parameters())
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in module.tower.network.state_dict().items())


def test_a_spot_stays_in_its_place_in_every_level():
    levels = SimpleFeaturePyramid([1], [16], strides=[4, 8, 16, 32], channels=4)
    spot = torch.zeros(1, 1, 16, 16)
    base = levels([spot], torch.tensor([[0.0, 0.0, 256.0, 256.0]]), (256, 256), aligned=True)
    spot[..., 10, 4] = 1.0
    moved = levels([spot], torch.tensor([[0.0, 0.0, 256.0, 256.0]]), (256, 256), aligned=True)
    for x, y, stride in zip(base, moved, (4, 8, 16, 32)):
        rows, columns = ((y - x).abs().sum((0, 1)) > 1e-6).nonzero().unbind(1)
        reach = stride  # the 3x3 convolution of the level
        assert rows.min() * stride >= 160 - reach - max(0, stride - 16)
        assert (rows.max() + 1) * stride <= 176 + reach + max(0, stride - 16)
        assert columns.min() * stride >= 64 - reach - max(0, stride - 16)
        assert (columns.max() + 1) * stride <= 80 + reach + max(0, stride - 16)


def test_exact_and_resampled_placement_agree_where_both_are_possible(generator):
    levels = SimpleFeaturePyramid([5], [16], strides=[4, 16], channels=4).eval()
    maps, region = [torch.rand(1, 5, 6, 6, generator=generator)], torch.tensor([[0.0, 0.0, 96.0, 96.0]])
    for exact, resampled in zip(levels(maps, region, (96, 96), aligned=True),
                                levels(maps, region, (96, 96), aligned=False)):
        torch.testing.assert_close(exact, resampled, rtol=1e-4, atol=1e-5)


def test_policy_reaches_the_tower():
    module = backbone(gradient='through', precision='bf16')
    assert (module.tower.gradient, module.tower.precision) == ('through', 'bf16')


def test_gradient_through_reaches_the_images(generator):
    images = torch.rand(1, 3, 32, 32, generator=generator, requires_grad=True)
    backbone(gradient='through')(images)[1].sum().backward()
    assert images.grad.abs().sum() > 0
    assert not backbone()(images)[1].requires_grad


@pytest.mark.parametrize(('options', 'message'), [
    (dict(out_indices=[2]), r'out_indices must choose among 0\.\.1, the maps \[.c1., .c2.\] of RandomTower'),
    (dict(out_indices=[]), 'out_indices must choose'),
    (dict(pyramid=dict(strides=[4])), 'pyramid needs exactly the keys strides and channels'),
    (dict(pyramid=dict(strides=[8, 4], channels=4)), 'must be positive and rise'),
    (dict(pyramid=dict(strides=[], channels=4)), 'must be positive and rise'),
    (dict(pyramid=dict(strides=[4], channels=0)), 'positive number of channels'),
])
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        backbone(**options)


def test_resizing_without_pyramid_is_refused():
    with pytest.raises(ValueError, match='do not lie on the image\'s grid; use resize_mode=\'none\''):
        FrozenBackbone(dict(TOWER, resize_mode='squash'))


def test_contradicting_policies_are_refused():
    with pytest.raises(ValueError, match='FrozenBackbone says precision=\'bf16\', but the config of its tower'):
        FrozenBackbone(dict(TOWER, precision='fp16'), precision='bf16')
    with pytest.raises(ValueError, match='must be given to the tower itself'):
        FrozenBackbone(RandomTower(resize_mode='none'), precision='bf16')


def test_the_old_name_of_the_tower_works():
    with pytest.warns(FutureWarning, match='model=.* is now called tower='):
        assert FrozenBackbone(model=TOWER).tower.name == FrozenBackbone(TOWER).tower.name


def test_something_else_than_a_tower_is_refused():
    with pytest.raises(TypeError, match='FrozenBackbone needs an image tower'):
        FrozenBackbone(nn.Identity())


def test_a_checkpoint_of_another_tower_is_refused():
    saved = FrozenBackbone(dict(TOWER, seed=1), image_stats=STATS).state_dict()
    with pytest.raises(ValueError, match='the checkpoint was made with the frozen network RandomTower'):
        backbone().load_state_dict(saved)
