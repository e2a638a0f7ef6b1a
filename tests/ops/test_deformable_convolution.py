"""Deformable convolution through mmcv's modules, against loops over taps and against plain convolution."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as functional
from mmcv.ops import (
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2d,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)
from torch import Tensor

from frozenmm.compat import mmcv_ext

pytestmark = pytest.mark.skipif(mmcv_ext.compiled_extension() is not None, reason='mmcv has compiled operators')
GEOMETRIES = [dict(), dict(stride=2, padding=1), dict(stride=(1, 2), padding=(2, 0), dilation=(2, 1))]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def value_at(plane: Tensor, y: float, x: float) -> float:
    """Bilinear value of (H, W) with zeros around it."""
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < plane.shape[0] and 0 <= j < plane.shape[1]:
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * plane[i, j].item()
    return total


def by_loops(input: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, *, stride=1, padding=0, dilation=1,
             groups: int = 1, deform_groups: int = 1) -> Tensor:
    (sy, sx), (py, px), (dy, dx) = pair(stride), pair(padding), pair(dilation)
    batch, channels = input.shape[:2]
    outputs, per_group, kh, kw = weight.shape
    h, w = offset.shape[-2:]
    out = torch.zeros(batch, outputs, h, w, dtype=input.dtype)
    for b, o, y, x in torch.cartesian_prod(*map(torch.arange, (batch, outputs, h, w))).tolist():
        for c in range(per_group):
            channel = o // (outputs // groups) * per_group + c
            group = channel // (channels // deform_groups)
            for i in range(kh):
                for j in range(kw):
                    tap = (group * kh + i) * kw + j
                    row = y * sy - py + i * dy + offset[b, 2 * tap, y, x].item()
                    column = x * sx - px + j * dx + offset[b, 2 * tap + 1, y, x].item()
                    factor = 1.0 if mask is None else mask[b, tap, y, x].item()
                    out[b, o, y, x] += weight[o, c, i, j] * factor * value_at(input[b, channel], row, column)
    return out


def tensors(*, groups: int, deform_groups: int, stride=1, padding=0, dilation=1) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)
    input, weight = normal(2, 4, 6, 7), normal(4, 4 // groups, 3, 2)
    h, w = functional.conv2d(input, weight, None, stride, padding, dilation, groups).shape[-2:]
    return input, normal(2, deform_groups * 12, h, w), normal(2, deform_groups * 6, h, w).sigmoid(), weight


@pytest.mark.parametrize('geometry', GEOMETRIES)
@pytest.mark.parametrize(('groups', 'deform_groups'), [(1, 1), (2, 1), (1, 2), (2, 4)])
def test_both_forms_follow_the_definition(geometry, groups, deform_groups):
    input, offset, mask, weight = tensors(groups=groups, deform_groups=deform_groups, **geometry)
    sizes = [geometry.get('stride', 1), geometry.get('padding', 0), geometry.get('dilation', 1)]
    bias = torch.arange(4, dtype=torch.float64)
    found = modulated_deform_conv2d(input, offset, mask, weight, bias, *sizes, groups, deform_groups)
    expected = by_loops(input, offset, mask, weight, groups=groups, deform_groups=deform_groups, **geometry)
    torch.testing.assert_close(found, expected + bias[:, None, None], atol=1e-9, rtol=1e-9)
    found = deform_conv2d(input, offset, weight, *sizes, groups, deform_groups)
    expected = by_loops(input, offset, None, weight, groups=groups, deform_groups=deform_groups, **geometry)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize('with_bias', [False, True])
def test_gradients_pass_gradcheck(with_bias):
    input, offset, mask, weight = (t.requires_grad_() for t in tensors(groups=2, deform_groups=2))
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True) if with_bias else None
    leaves = [input, offset, mask, weight, *([bias] if with_bias else [])]
    assert torch.autograd.gradcheck(
        lambda *t: modulated_deform_conv2d(*t[:4], t[4] if with_bias else None, 1, 0, 1, 2, 2), leaves)
    assert torch.autograd.gradcheck(lambda x, o, k: deform_conv2d(x, o, k, 1, 0, 1, 2, 2), [input, offset, weight])


@pytest.mark.parametrize('kind', [DeformConv2dPack, ModulatedDeformConv2dPack])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_without_offsets_it_is_a_convolution(kind, dtype):
    layer = kind(8, 6, 3, stride=2, padding=1, bias=False).to(dtype)
    x = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(1)).to(dtype)
    factor = 0.5 if kind is ModulatedDeformConv2dPack else 1.0  # its masks are sigmoids of 0
    expected = factor * functional.conv2d(x.float(), layer.weight.float(), None, 2, 1)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(layer(x).float(), expected, atol=tolerance, rtol=tolerance)


def test_the_example_of_mmcvs_test():
    """One channel of 3 x 3, a kernel of 2 x 2 of ones, offsets of one row of a map."""
    x = torch.tensor([[[[1.0, 2, 3], [0, 1, 2], [3, 5, 2]]]])
    layer = DeformConv2d(1, 1, (2, 2))
    layer.weight.data.fill_(1)
    offset = torch.full((1, 8, 2, 2), 0.5)
    expected = by_loops(x.double(), offset.double(), None, torch.ones(1, 1, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(layer(x, offset), expected.float())
    layer = ModulatedDeformConv2d(1, 1, (2, 2), bias=False)
    layer.weight.data.fill_(1)
    mask = torch.full((1, 4, 2, 2), 0.3)
    torch.testing.assert_close(layer(x, offset, mask), 0.3 * expected.float())
