from __future__ import annotations

import pytest
import torch

from frozenmm.foundation.local_lines import interpolation_matrix, node_positions
from frozenmm.ops import loader
from frozenmm.ops.line_maps import line_maps, maps_backward_definition, maps_definition


def _inputs(generator, frames=3, size=(45, 70)):
    depth = torch.rand(frames, *size, generator=generator)
    spread = [interpolation_matrix(node_positions(side, stride=16).double(), side) for side in size]
    nodes = (frames, spread[0].shape[1], spread[1].shape[1])
    intercept = torch.randn(nodes, generator=generator).double() * 0.3
    slope = 1 + 0.3 * torch.randn(nodes, generator=generator).double()
    return depth, torch.rand(frames, generator=generator) + 0.5, torch.rand(frames, generator=generator) - 0.8, \
        intercept, slope, *spread


@pytest.mark.skipif(loader.backend('cpu') != 'native', reason='the compiled library is not loaded')
def test_the_kernel_is_the_definition(generator):
    inputs = _inputs(generator)
    found, wanted = torch.ops.frozenmm.line_maps(*inputs), maps_definition(*inputs)
    assert 0.05 < float((wanted == 0).float().mean()) < 0.9
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    grad = torch.randn(wanted.shape, generator=generator)
    for ours, theirs in zip(torch.ops.frozenmm.line_maps_backward(grad, *inputs),
                            maps_backward_definition(grad, *inputs)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_the_gradient_is_that_of_autograd(generator):
    depth, *unknown, rows, columns = _inputs(generator)
    weights, found = torch.randn(depth.shape, generator=generator), []
    for function in (line_maps, maps_definition):
        leaves = [x.clone().requires_grad_() for x in unknown]
        (function(depth, *leaves, rows, columns) * weights).sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_wrong_shapes_are_explained(generator):
    depth, scale, *rest = _inputs(generator)
    with pytest.raises(ValueError, match=r'scale and shift \(F, \)'):
        line_maps(depth, scale[:2], *rest)
