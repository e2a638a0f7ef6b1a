"""Without enhancers EnhancedDINO is mmdet's DINO, bit for bit; on our attention to rounding."""
from __future__ import annotations

import copy

import pytest
import tiny_dino as tiny
import torch

from frozenmm.compat.versions import installed_versions
from frozenmm.ops import accelerate

pytestmark = pytest.mark.skipif('onedl-mmdetection' in installed_versions(), reason=(
    "OneDL's DINO embeds reference boxes with twice the width of upstream's, which ours keeps so that weights load"))


@pytest.fixture(scope='module')
def pair():
    """Stock DINO and EnhancedDINO with the same weights; mmdet's decoder works at width 256 only."""
    stock = tiny.build(tiny.config(256, layers=2))
    ours = tiny.build(tiny.enhanced(dim=256, layers=2, patch_groups=32), seed=1)
    ours.load_state_dict(stock.state_dict(), strict=True)
    return stock, ours


@pytest.mark.parametrize('sizes', [((64, 64), (64, 64)), ((64, 96), (40, 72))], ids=['full', 'padded'])
def test_outputs_equal_stock_dino(pair, sizes):
    stock, ours = pair
    data = tiny.batch(sizes)
    stock.eval()
    with torch.no_grad():
        expected = stock(**stock.data_preprocessor(copy.deepcopy(data)), mode='tensor')
    for got, want in zip(tiny.outputs(ours, data), expected, strict=True):
        assert torch.equal(got, want)


def test_outputs_on_our_attention_equal_stock_dino_to_rounding(pair):
    stock, ours = pair
    data = tiny.batch(((64, 96), (40, 72)))
    stock.eval()
    accelerated = copy.deepcopy(ours)
    assert len(accelerate(accelerated).replaced) == 4
    with torch.no_grad():
        expected = stock(**stock.data_preprocessor(copy.deepcopy(data)), mode='tensor')
    for got, want in zip(tiny.outputs(accelerated, data), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('targets', [(2, 1), (3, 0), (0, 0)])
def test_losses_and_gradients_equal_stock_dino(pair, targets):
    stock, ours = pair
    data = tiny.batch(targets=targets)
    gradients = []
    expected, got = (tiny.losses(model, data) for model in pair)
    assert expected.keys() == got.keys()
    for key in expected:
        assert torch.equal(expected[key], got[key]), key
    for model, losses in ((stock, expected), (ours, got)):
        model.zero_grad()
        sum(value.sum() for value in losses.values()).backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_detections_equal_stock_dino(pair):
    results = []
    for model in pair:
        model.eval()
        data = model.data_preprocessor(copy.deepcopy(tiny.batch()))
        with torch.no_grad():
            results.append([sample.pred_instances for sample in model(**data, mode='predict')])
    for want, got in zip(*results):
        assert torch.equal(want.labels, got.labels) and torch.equal(want.scores, got.scores)
        torch.testing.assert_close(want.bboxes, got.bboxes, rtol=1e-6, atol=1e-4)


def test_state_dict_has_the_names_and_shapes_of_stock_dino(pair):
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in pair]
    assert shapes[0] == shapes[1]


def test_the_config_given_is_not_changed():
    config = tiny.enhanced(tiny.tiny(1, ('res4',)))
    before = copy.deepcopy(config)
    tiny.build(config)
    assert config == before
    tiny.build(config)
