from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import compiled, implementation, recorded  # noqa: F401

from frozenmm.ops.mask_pool import mask_pool, pool_definition, resize_masks


def _official(features, logits):
    if logits.shape[-2:] != features.shape[-2:]:
        logits = F.interpolate(logits, features.shape[-2:], mode='bilinear', align_corners=False)
    inside = (logits > 0).to(features.dtype)
    return torch.einsum('bchw,bqhw->bqc', features, inside) / (inside.sum(dim=(2, 3)).unsqueeze(-1) + 1e-8)


def _case(seed, images=2, channels=5, queries=4, size=(6, 7), source=(12, 11), dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
    return features, torch.randn(images, queries, *source, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parity
@pytest.mark.parametrize('name', ['mask_pooling__resized', 'mask_pooling__same_size'])
def test_recorded_cases_agree(name, implementation):  # noqa: F811
    _, tensors, tolerance = recorded(name)
    pooled = mask_pool(tensors['in.features'], tensors['in.mask_logits'])
    torch.testing.assert_close(pooled, tensors['out.pooled'], **tolerance)
    assert (pooled[0, 0] == 0).all(), 'query 0 has an empty mask'


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9),
       st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**16))
def test_any_sizes_agree_with_the_official_form(images, channels, queries, height, width, source_h, source_w, seed):
    features, logits = _case(seed, images, channels, queries, (height, width), (source_h, source_w))
    resized = F.interpolate(logits, (height, width), mode='bilinear', align_corners=False)
    logits[(resized.abs() < 1e-5).any(-1).any(-1)] = -1.0  # a logit at the threshold may fall on either side
    torch.testing.assert_close(mask_pool(features, logits), _official(features, logits), atol=1e-5, rtol=1e-5)


def test_threshold_is_strict_and_moves_the_mask(implementation):  # noqa: F811
    features = torch.arange(4.0).view(1, 1, 2, 2)
    logits = torch.tensor([[-1.0, 0.0], [0.5, 2.0]]).view(1, 1, 2, 2)
    assert mask_pool(features, logits).item() == pytest.approx(2.5)
    assert mask_pool(features, logits, threshold=0.5).item() == pytest.approx(3.0)
    assert mask_pool(features, logits, threshold=-0.5).item() == pytest.approx(2.0)


def test_empty_and_nan_masks_pool_to_zero(implementation):  # noqa: F811
    features, logits = _case(1, images=1, queries=2)
    logits[:, 0] = -5
    logits[:, 1] = float('nan')
    assert torch.equal(mask_pool(features, logits), torch.zeros(1, 2, 5))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_features_are_summed_in_float32(dtype, implementation):  # noqa: F811
    features = torch.full((1, 3, 40, 50), 3.0, dtype=dtype)
    logits = torch.ones(1, 2, 40, 50, dtype=dtype)
    logits[:, 1] = -1
    pooled = mask_pool(features, logits)
    assert pooled.dtype == dtype
    assert (pooled[0, 0] == 3).all() and (pooled[0, 1] == 0).all()


def test_gradient_reaches_the_features_only(implementation):  # noqa: F811
    features, logits = _case(2)
    features.requires_grad_()
    logits.requires_grad_()
    mask_pool(features, logits).square().sum().backward()
    expected = features.detach().clone().requires_grad_()
    _official(expected, logits.detach()).square().sum().backward()
    torch.testing.assert_close(features.grad, expected.grad, atol=1e-5, rtol=1e-4)
    assert logits.grad is None


def test_hard_rule_passes_gradcheck():
    features, logits = _case(3, images=1, channels=2, size=(3, 4), source=(6, 5), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: mask_pool(f, logits), (features.requires_grad_(),))


def test_soft_rule_weighs_by_the_sigmoid_and_passes_gradcheck():
    features, logits = _case(4, images=1, channels=2, size=(3, 4), source=(6, 5), dtype=torch.float64)
    weights = F.interpolate(logits, (3, 4), mode='bilinear', align_corners=False).sigmoid()
    expected = torch.einsum('bchw,bqhw->bqc', features, weights) / weights.sum((2, 3))[..., None]
    torch.testing.assert_close(mask_pool(features, logits, rule='soft'), expected)
    assert torch.autograd.gradcheck(lambda f, m: mask_pool(f, m, rule='soft'),
                                    (features.requires_grad_(), logits.requires_grad_()))


def test_area_rule_weighs_a_cell_by_what_the_mask_covers_of_it():
    features = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    logits = torch.full((1, 2, 8, 8), -1.0)
    logits[0, 0, :2, 2:6] = 1  # four of sixteen pixels in each upper cell
    logits[0, 1, 7, 7] = 1  # one pixel: too small for the hard rule, whose resized logit is negative
    pooled = mask_pool(features, logits, rule='area')
    torch.testing.assert_close(pooled[0, :, 0], torch.tensor([5.5, 1000.0]), atol=1e-3, rtol=1e-5)
    assert (mask_pool(features, logits)[0, 1] == 0).all()
    assert (mask_pool(features, -logits.abs(), rule='area') == 0).all()


def test_area_rule_passes_gradcheck_and_stops_at_the_masks():
    features, logits = _case(3, dtype=torch.float64)
    features, logits = features.requires_grad_(), logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mask_pool(x, logits, rule='area'), (features, ))
    mask_pool(features, logits, rule='area').sum().backward()
    assert logits.grad is None


def test_no_images_or_queries_give_empty_results(implementation):  # noqa: F811
    assert mask_pool(torch.rand(0, 3, 4, 5), torch.rand(0, 2, 8, 8)).shape == (0, 2, 3)
    assert mask_pool(torch.rand(2, 3, 4, 5), torch.rand(2, 0, 8, 8)).shape == (2, 0, 3)


def test_strided_inputs_give_the_same_result(implementation):  # noqa: F811
    features, logits = _case(5)
    expected = mask_pool(features, logits)
    strided = mask_pool(features.transpose(2, 3).contiguous().transpose(2, 3), logits.flip(1).flip(1)[..., :])
    torch.testing.assert_close(strided, expected)
    channels_last = mask_pool(features.to(memory_format=torch.channels_last),
                              logits.to(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, expected)


def test_autocast_keeps_float32_sums():
    features, logits = _case(6)
    with torch.autocast('cpu', torch.bfloat16):
        pooled = mask_pool(features, logits)
        soft = mask_pool(features, logits, rule='soft')
    torch.testing.assert_close(pooled, _official(features, logits), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(soft, mask_pool(features, logits, rule='soft'))


def test_opcheck_accepts_the_operator():
    features, logits = _case(7)
    torch.library.opcheck(torch.ops.frozenmm.mask_pool.default, (features.requires_grad_(), logits, 0.0, 1e-8))
    grad = torch.rand(2, 4, 5)
    torch.library.opcheck(torch.ops.frozenmm.mask_pool_backward.default, (grad, logits, 6, 7, 0.0, 1e-8))


def test_compiles_as_one_graph_and_exports():
    features, logits = _case(8)
    expected = mask_pool(features, logits)
    compiled_pool = torch.compile(mask_pool, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled_pool(features, logits), expected)

    class Pool(torch.nn.Module):
        def forward(self, features, logits):
            return mask_pool(features, logits)

    program = torch.export.export(Pool(), (features, logits))
    torch.testing.assert_close(program.module()(features, logits), expected)


def test_folded_resize_equals_the_plain_one():
    logits = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(9))
    plain = F.interpolate(logits, (5, 4), mode='bilinear', align_corners=False)
    torch.testing.assert_close(resize_masks(logits, (5, 4)), plain)
    assert resize_masks(logits[:, :0], (5, 4)).shape == (2, 0, 5, 4)


@pytest.mark.skipif(not compiled(), reason='the compiled CPU operators are not loaded')
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_compiled_kernel_equals_the_definition(dtype):
    features, logits = _case(10, channels=33, queries=9, size=(13, 17), source=(40, 50), dtype=dtype)
    pooled = torch.ops.frozenmm.mask_pool(features, logits, 0.1, 1e-8)
    torch.testing.assert_close(pooled, pool_definition(features, logits, 0.1, 1e-8), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not compiled(), reason='the compiled CPU operators are not loaded')
@pytest.mark.parametrize('arguments, message', [
    ((torch.rand(2, 3, 4), torch.rand(2, 1, 4, 4)), 'features must have 4 axes, got 3'),
    ((torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4)), 'mask_logits must have axes'),
    ((torch.rand(2, 3, 4, 4), torch.rand(1, 1, 4, 4)), 'features has 2 images but mask_logits 1'),
    ((torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4).half()), 'must both be float32 or both float64'),
])
def test_compiled_kernel_refuses_what_it_cannot_take(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.frozenmm.mask_pool(*arguments, 0.0, 1e-8)


@pytest.mark.parametrize('features, logits, options, error, message', [
    ([1.0], torch.rand(1, 1, 2, 2), {}, TypeError, r'features must be a floating point Tensor .* got list'),
    (torch.ones(1, 1, 2, 2, dtype=torch.int64), torch.rand(1, 1, 2, 2), {}, TypeError, r'features .* got torch.int64'),
    (torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2) > 0, {}, TypeError, r'mask_logits .* got torch.bool'),
    (torch.rand(1, 2, 2), torch.rand(1, 1, 2, 2), {}, ValueError, r'features must have shape \(B, C, Hf, Wf\)'),
    (torch.rand(1, 1, 2, 2), torch.rand(1, 2, 2), {}, ValueError, r'mask_logits must have shape \(B, Q, h, w\)'),
    (torch.rand(1, 1, 0, 2), torch.rand(1, 1, 2, 2), {}, ValueError, r'features must have a height and width'),
    (torch.rand(2, 1, 2, 2), torch.rand(1, 1, 2, 2), {}, ValueError, r'same number of images, got 2 and 1'),
    (torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2, device='meta'), {}, ValueError, r'features is on cpu but mask_lo'),
    (torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2), {'rule': 'mean'}, ValueError, r"rule must be one of .*'area'"),
])
def test_bad_arguments_are_named(features, logits, options, error, message):
    with pytest.raises(error, match=message):
        mask_pool(features, logits, **options)
