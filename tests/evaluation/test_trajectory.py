from __future__ import annotations

import pytest
import torch

from frozenmm.errors import UserError
from frozenmm.evaluation.trajectory import fit_similarity, orthonormal, relative_errors, trajectory_errors


def _poses(generator, count=6):
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, :3, :3] = orthonormal(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64))
    poses[:, :3, 3] = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return poses


def test_a_similarity_is_recovered_and_leaves_no_error(generator):
    poses = _poses(generator)
    rotation, source = poses[0, :3, :3], poses[:, :3, 3]
    target = 2.5 * source @ rotation.T + torch.tensor([1.0, 2.0, 3.0])
    fit = fit_similarity(source, target)
    assert float(fit.scale) == pytest.approx(2.5)
    torch.testing.assert_close(fit.rotation, rotation)
    assert trajectory_errors(source, target)['ate_rmse'] < 1e-12
    assert trajectory_errors(source, target, with_scale=False)['ate_rmse'] > 0.1


def test_relative_errors_ignore_the_world_frame_and_the_scale(generator):
    poses = _poses(generator)
    moved = _poses(generator, 1)[0] @ poses
    moved[:, :3, 3] *= 0.3
    errors = relative_errors(moved, poses)
    assert errors['rpe_rotation_deg'] < 1e-6 and errors['rpe_translation'] < 1e-9


def test_rounded_rotations_have_no_angle(generator):
    poses = _poses(generator)
    rounded = poses.clone()
    rounded[:, :3, :3] *= 1 + 1e-4
    assert relative_errors(rounded, poses)['rpe_rotation_deg'] < 1e-6


def test_bad_input_is_explained(generator):
    with pytest.raises(ValueError, match=r'two sets of one shape \(N, 3\)'):
        fit_similarity(torch.ones(4, 3), torch.ones(5, 3))
    with pytest.raises(ValueError, match='at least 2 points'):
        fit_similarity(torch.ones(1, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match='step must lie in 1..5'):
        relative_errors(_poses(generator), _poses(generator), step=6)


def test_a_true_camera_that_stands_still_is_refused():
    still = torch.tensor([[1.0, 2.0, 3.0]]).repeat(5, 1)
    with pytest.raises(UserError, match='the true camera does not move'):
        trajectory_errors(torch.rand(5, 3, generator=torch.Generator().manual_seed(0)), still)
