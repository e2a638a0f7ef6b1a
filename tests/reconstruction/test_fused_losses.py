from __future__ import annotations

import pytest
import torch

from frozenmm.reconstruction.pair_sampling import PairDraw
from frozenmm.reconstruction.staged_optimizer import OFFICIAL_STAGES, StagedOptimizer, StagedParameters


def _clip(generator):
    noise = torch.rand(1, 3, 8, 12, generator=generator)
    images = torch.nn.functional.interpolate(noise, (40, 60), mode='bilinear', align_corners=False)
    return torch.cat([images.roll(i, 3) for i in range(3)]), torch.rand(3, 40, 60, generator=generator) * 0.3 + 1


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('compat', [False, True])
@pytest.mark.parametrize('stage', OFFICIAL_STAGES[1:])
def test_losses_and_gradients_are_those_of_autograd(generator, compat, stage, masked):
    images, depth = _clip(generator)
    start = StagedParameters.start(3)
    start.translations += 0.02 * torch.randn(2, 3, generator=generator).double()
    start.rotations += 0.02 * torch.randn(2, 3, generator=generator).double()
    start.anchors += 0.05 * torch.randn(3, 5, 5, generator=generator)
    draw = PairDraw(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), torch.arange(0, 2400, 3))
    invalid = torch.rand(3, 40, 60, generator=generator) < 0.2 if masked else None
    found = []
    for fused in (True, False):
        optimizer = StagedOptimizer(images, depth, parameters=start, compat=compat, fused=fused, invalid=invalid)
        assert (optimizer.colours is not None) == fused
        losses = optimizer.evaluate(stage, draw)
        losses.total.backward()
        p = optimizer.parameters
        found.append([losses.total.detach(), *(leaf.grad for leaf in (p.translations, p.rotations, p.focal_ratio,
                                                                      p.scale, p.shift, p.anchors))])
    for ours, reference in zip(*found):
        scale = float(reference.abs().max())
        torch.testing.assert_close(ours.double(), reference.double(), rtol=1e-4, atol=1e-5 * scale)


def test_small_maps_go_through_autograd(generator):
    images, depth = _clip(generator)
    optimizer = StagedOptimizer(images[..., :20], depth[..., :20])
    assert optimizer.colours is None
    draw = PairDraw(torch.tensor([0]), torch.tensor([1]), torch.arange(800))
    assert torch.isfinite(optimizer.evaluate(OFFICIAL_STAGES[0], draw).total)
