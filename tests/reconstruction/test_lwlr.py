from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from frozenmm.foundation.local_lines import interpolation_matrix
from frozenmm.reconstruction.lwlr import LWLR, anchor_positions, corrected_depth


def _depth(generator, frames=2, size=(40, 56)):
    return torch.rand(frames, *size, generator=generator, dtype=torch.float64) + 0.5


@pytest.mark.parametrize('compat', [False, True])
def test_unit_anchors_leave_depth_as_it_is(generator, compat):
    depth = _depth(generator)
    corrected = LWLR((40, 56), compat=compat)(depth, torch.ones(2, 5, 5))
    torch.testing.assert_close(corrected, depth)


def test_frames_are_corrected_independently(generator):
    depth, anchors = _depth(generator, 3), torch.rand(3, 5, 5, generator=generator) + 0.5
    depth[0, 4, 5] = 0  # an anchor of the first frame only
    correction = LWLR((40, 56))
    alone = torch.cat([correction(depth[i:i + 1], anchors[i:i + 1]) for i in range(3)])
    torch.testing.assert_close(correction(depth, anchors), alone)


def test_moment_form_equals_a_direct_weighted_fit(generator):
    depth, anchors = _depth(generator, 1), torch.rand(1, 5, 5, generator=generator, dtype=torch.float64) + 0.5
    correction = LWLR((40, 56), bandwidth_px=20, ridge=0.3)
    intercept, slope = correction.coefficients(depth, anchors)
    rows, columns = correction.anchor_pixels.T
    x = depth[0, rows, columns]
    y = anchors.flatten() * x
    weights = (-((rows - 16)**2 + (columns - 48)**2) / (2 * 20.0**2)).exp()
    design = torch.stack((torch.ones_like(x), x), 1)
    normal = design.T @ (weights[:, None] * design) + torch.diag(torch.tensor([0.3, 0.0], dtype=torch.float64))
    expected = torch.linalg.solve(normal, design.T @ (weights * y))
    torch.testing.assert_close(torch.stack((intercept[0, 0, 1], slope[0, 0, 1])), expected)


def test_default_interpolates_at_the_true_node_positions():
    nodes = torch.tensor([16.0, 48.0, 80.0], dtype=torch.float64)
    ramp = interpolation_matrix(nodes, 96) @ nodes
    torch.testing.assert_close(ramp[16:81], torch.arange(16, 81, dtype=torch.float64))
    assert ramp[0] == 16 and ramp[95] == 80


def test_correction_has_correct_gradients(generator):
    depth = _depth(generator, 1, (20, 20)).requires_grad_()
    anchors = (torch.rand(1, 5, 5, generator=generator, dtype=torch.float64) + 0.5).requires_grad_()
    assert gradcheck(LWLR((20, 20), bandwidth_px=8, stride=8), (depth, anchors))


def test_a_map_without_depth_stays_zero_and_finite():
    corrected = LWLR((40, 56))(torch.zeros(1, 40, 56), torch.ones(1, 5, 5))
    assert torch.equal(corrected, torch.zeros(1, 40, 56))


def test_negative_depth_becomes_zero_unless_kept(generator):
    depth = _depth(generator, 1)
    arguments = (depth, torch.ones(1), torch.full((1, ), -0.9), torch.ones(1, 5, 5), LWLR((40, 56)))
    assert corrected_depth(*arguments).min() == 0
    assert corrected_depth(*arguments, keep_negative=True).min() < 0


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r'depth must have shape \(F, 40, 56\), got \(1, 40, 50\)'):
        LWLR((40, 56))(torch.ones(1, 40, 50), torch.ones(1, 5, 5))
    with pytest.raises(ValueError, match=r'anchors must have shape \(1, 5, 5\), got \(2, 5, 5\)'):
        LWLR((40, 56))(torch.ones(1, 40, 56), torch.ones(2, 5, 5))
    with pytest.raises(ValueError, match='bandwidth_px must be positive'):
        LWLR((40, 56), bandwidth_px=0)
    with pytest.raises(ValueError, match='cannot hold 5 anchors'):
        anchor_positions(3)
    with pytest.raises(ValueError, match='has no node at stride 32'):
        LWLR((16, 56))
