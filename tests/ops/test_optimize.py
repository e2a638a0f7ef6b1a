"""`frozenmm.optimize`: the same results, fewer steps, and back again bit for bit."""
from __future__ import annotations

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmdet.models.backbones import ResNet
from torch import nn

import frozenmm
from frozenmm.errors import WrongKind
from frozenmm.ops.optimize import FoldedConv2d, optimize, restore


def settled(model: nn.Module) -> nn.Module:
    """The model in eval mode with statistics that are not those of a new norm."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    model.eval()
    return model


def resnet(depth: int = 50, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    return settled(ResNet(depth=depth, base_channels=4, stem_channels=4, **changes))


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 80, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(('depth', 'norms'), [(18, 20), (50, 53)])
@pytest.mark.parametrize('deep_stem', [False, True])
@torch.no_grad()
def test_a_resnet_gives_the_same_with_every_norm_folded_and_comes_back_bit_for_bit(depth, norms, deep_stem):
    model = resnet(depth, deep_stem=deep_stem)
    expected, state = model(images()), copy.deepcopy(model.state_dict())
    report = optimize(model)
    assert len(report.folded) == norms + 2 * deep_stem and not report.skipped.get('bn1')
    for found, wanted in zip(model(images()), expected):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    restore(model)
    assert not any(isinstance(module, FoldedConv2d) for module in model.modules())
    assert all(torch.equal(found, wanted) for found, wanted in zip(model(images()), expected))


def test_training_and_gradients_compute_as_before():
    plain, model = resnet(), resnet()
    optimize(model)
    for mode in (False, True):
        outputs = []
        for network in (plain, model):
            network.train(mode)
            outputs.append(network(images()))
            outputs[-1][-1].square().sum().backward()
        assert torch.equal(outputs[0][-1], outputs[1][-1])
        for one, other in zip(plain.parameters(), model.parameters()):
            assert one.grad is not None and torch.equal(one.grad, other.grad)


@torch.no_grad()
def test_weights_that_are_loaded_later_count():
    model, other = resnet(18), settled(ResNet(depth=18, base_channels=4, stem_channels=4))
    optimize(model)
    model(images())
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(images())[-1], other(images())[-1], atol=1e-5, rtol=1e-4)
    moved = copy.deepcopy(model).double()
    torch.testing.assert_close(moved(images().double())[-1].float(), other(images())[-1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_convolution_that_several_norms_share_is_left_alone():
    levels = nn.ModuleList(ConvModule(4, 4, 1, norm_cfg=dict(type='BN')) for _ in range(2))
    levels[1].conv = levels[0].conv
    alone = ConvModule(4, 4, 1, norm_cfg=dict(type='BN'))
    report = optimize(nn.ModuleList([levels, alone]).eval())
    assert report.folded == ['1.bn'] and set(report.skipped) >= {'0.0.bn', '0.1.bn'}
    assert 'shares its convolution' in str(report)


@torch.no_grad()
def test_attention_of_mmcv_makes_no_weights_and_the_same_results():
    torch.manual_seed(0)
    model = nn.ModuleList([MultiheadAttention(16, 4, batch_first=True)]).eval()
    query, key = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    blocked = torch.rand(8, 5, 7) > 0.7
    calls = [dict(key=key, value=key, attn_mask=blocked), dict(query_pos=torch.randn(2, 5, 16))]
    expected = [model[0](query, **call) for call in calls]
    assert optimize(model).attention == ['0.attn']
    for call, wanted in zip(calls, expected):
        torch.testing.assert_close(model[0](query, **call), wanted, atol=1e-6, rtol=1e-5)
    restore(model)
    assert torch.equal(model[0](query, **calls[0]), expected[0])


def test_the_report_says_what_an_earlier_call_did(caplog):
    model = resnet(18)
    assert len(frozenmm.optimize(model).folded) == 20
    again = frozenmm.optimize(model)
    assert again.folded == [] and len(again.already) == 20 and '20 done before' in str(again)


def test_only_models_are_optimised():
    with pytest.raises(WrongKind, match='takes a built model'):
        optimize({'type': 'DINO'})
