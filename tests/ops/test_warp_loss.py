from __future__ import annotations

import pytest
import torch

from frozenmm.ops import loader
from frozenmm.ops.warp_loss import loss_definition, warp_loss

FRAMES, HEIGHT, WIDTH = 4, 37, 53


def _inputs(generator, pixels=900, masked=False):
    coarse = torch.rand(FRAMES, 4, 7, 9, generator=generator)
    colours = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode='bilinear', align_corners=True)
    colours = colours.permute(0, 2, 3, 1).contiguous()
    depth = torch.rand(FRAMES, HEIGHT, WIDTH, generator=generator) * 0.2 + 1
    depth[1, 10:20, 10:20] = 0
    invalid = torch.rand(FRAMES, HEIGHT, WIDTH, generator=generator) < 0.2 if masked else None
    targets, references = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 2, 2, 1, 3])
    camera = torch.tensor([[60.0, 0, WIDTH / 2], [0, 60.0, HEIGHT / 2], [0, 0, 1]]).double()
    turned = torch.eye(3).double() + 0.05 * torch.randn(5, 3, 3, generator=generator).double()
    shifts = (camera @ (0.05 * torch.randn(5, 3, 1, generator=generator).double()))[..., 0]
    chosen = torch.randperm(HEIGHT * WIDTH, generator=generator)[:pixels].sort().values
    matrices = camera @ turned @ camera.inverse()
    return colours, colours.roll(1, 0), depth, invalid, matrices, shifts, targets, references, chosen


@pytest.mark.skipif(loader.backend('cpu') != 'native', reason='the compiled library is not loaded')
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('stretched', [False, True])
@pytest.mark.parametrize('trim', [None, 0.9, 1.0, 0.001])
def test_the_kernel_is_the_definition(generator, trim, stretched, masked):
    inputs = (*_inputs(generator, masked=masked), 2.0, 0.5, trim, stretched)
    ours, wanted = torch.ops.frozenmm.warp_loss(*inputs), loss_definition(*inputs)
    assert wanted[0].min() > 0
    torch.testing.assert_close(ours[0], wanted[0], rtol=1e-6, atol=0)
    for found, reference in zip(ours[1:], wanted[1:]):
        torch.testing.assert_close(found, reference, rtol=1e-4, atol=2e-6 * float(reference.abs().max()))


@pytest.mark.skipif(loader.backend('cpu') != 'native', reason='the compiled library is not loaded')
def test_the_number_of_threads_does_not_change_a_bit(generator):
    inputs, before, found = (*_inputs(generator), 2.0, 0.5, 0.9, True), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(torch.ops.frozenmm.warp_loss(*inputs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_the_gradient_is_the_slope(generator):
    colours, own, depth, _, matrices, shifts, *rest = _inputs(generator)

    def loss(m, t):
        return warp_loss(colours, own, depth, None, m, t, *rest, photometric=1.0, geometric=1.0, trim=None)[0]

    matrices.requires_grad_()
    shifts.requires_grad_()
    loss(matrices, shifts).backward()
    direction = torch.randn(shifts.shape, generator=generator).double()
    step = 1e-5 * direction
    with torch.no_grad():
        slope = (loss(matrices, shifts + step) - loss(matrices, shifts - step)) / 2e-5
    assert float(slope) == pytest.approx(float((shifts.grad * direction).sum()), rel=0.05)


def test_no_pixel_that_counts_gives_zeros(generator):
    colours, own, depth, _, matrices, shifts, *rest = _inputs(generator)
    depth = depth.zero_().requires_grad_()
    total, means = warp_loss(colours, own, depth, None, matrices, shifts, *rest, photometric=1.0, geometric=1.0,
                             trim=0.9)
    total.backward()
    assert float(total.detach()) == 0 and not means.any() and not depth.grad.any()


def test_wrong_input_is_explained(generator):
    colours, own, depth, _, matrices, shifts, targets, references, pixels = _inputs(generator)
    settings = {'photometric': 1.0, 'geometric': 1.0, 'trim': None}
    with pytest.raises(ValueError, match=r'colours must have shape \(4, 37, 53, 4\)'):
        warp_loss(colours[..., :3], own, depth, None, matrices, shifts, targets, references, pixels, **settings)
    with pytest.raises(ValueError, match='at least 24 pixels a side'):
        warp_loss(colours[:, :20], own[:, :20], depth[:, :20], None, matrices, shifts, targets, references, pixels,
                  **settings)
    if loader.backend('cpu') == 'native':
        with pytest.raises(RuntimeError, match='references must be in 0..3, got 9'):
            warp_loss(colours, own, depth, None, matrices, shifts, targets, references + 8, pixels, **settings)
