from __future__ import annotations

import pytest
import torch

from frozenmm.evaluation.depth import align_depth, depth_errors


def test_alignments_undo_what_they_model(generator):
    truth = torch.rand(20, 30, generator=generator, dtype=torch.float64) + 1
    truth[0] = 0
    measured = truth > 0
    torch.testing.assert_close(align_depth(truth / 3, truth), truth)
    torch.testing.assert_close(align_depth(truth / 3, truth, method='lsq_scale'), truth)
    affine = align_depth((truth - 0.4) / 3, truth, method='lsq_scale_shift')
    torch.testing.assert_close(affine[measured], truth[measured])
    assert align_depth(truth / 3, truth, method='none').max() < 1


def test_errors_of_a_uniform_excess_are_known():
    errors = depth_errors(torch.full((4, ), 1.5), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert errors['abs_rel'] == pytest.approx(0.5) and errors['rmse'] == pytest.approx(0.5)
    assert errors['delta1'] == 0 and errors['delta2'] == 1 and errors['silog'] == pytest.approx(0, abs=1e-7)


def test_bad_input_is_explained():
    with pytest.raises(ValueError, match='method must be one of'):
        align_depth(torch.ones(2), torch.ones(2), method='mean')
    with pytest.raises(ValueError, match='must have one shape'):
        depth_errors(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match='no pixel has a measured depth'):
        depth_errors(torch.ones(2), torch.zeros(2))
