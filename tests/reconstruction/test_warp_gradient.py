from __future__ import annotations

import pytest
import torch

from frozenmm.reconstruction.pair_sampling import PairDraw
from frozenmm.reconstruction.staged_optimizer import OFFICIAL_STAGES, StagedOptimizer, StagedParameters


def _clip(generator):
    noise = torch.rand(1, 3, 8, 12, generator=generator)
    images = torch.nn.functional.interpolate(noise, (40, 60), mode='bilinear', align_corners=False)
    return torch.cat([images.roll(i, 3) for i in range(3)]), torch.rand(3, 40, 60, generator=generator) * 0.3 + 1


@pytest.mark.parametrize('compat', [False, True])
@pytest.mark.parametrize('stage', OFFICIAL_STAGES[1:])
def test_the_written_gradient_is_that_of_autograd(generator, compat, stage):
    images, depth = _clip(generator)
    start = StagedParameters.start(3)
    start.translations += 0.02 * torch.randn(2, 3, generator=generator).double()
    start.rotations += 0.02 * torch.randn(2, 3, generator=generator).double()
    start.anchors += 0.05 * torch.randn(3, 5, 5, generator=generator)
    draw = PairDraw(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), torch.arange(0, 2400, 3))
    found = []
    for written_out in (True, False):
        optimizer = StagedOptimizer(images, depth, parameters=start, compat=compat, written_out=written_out)
        assert (optimizer.tables is not None) == written_out
        losses = optimizer.evaluate(stage, draw)
        losses.total.backward()
        p = optimizer.parameters
        found.append([losses.total.detach(), *(leaf.grad for leaf in (p.translations, p.rotations, p.focal_ratio,
                                                                      p.scale, p.shift, p.anchors))])
    for ours, reference in zip(*found):
        scale = float(reference.abs().max())
        torch.testing.assert_close(ours.double(), reference.double(), rtol=1e-4, atol=1e-5 * scale)


def test_invalid_pixels_go_through_autograd(generator):
    images, depth = _clip(generator)
    assert StagedOptimizer(images, depth, invalid=torch.zeros(3, 40, 60, dtype=torch.bool)).tables is None
