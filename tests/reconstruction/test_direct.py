from __future__ import annotations

import numpy as np
import pytest
import torch

from frozenmm.evaluation.trajectory import trajectory_errors
from frozenmm.reconstruction.align import AlignSettings, align
from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.direct_solver import DirectSettings, DirectSolver
from frozenmm.reconstruction.direct_system import DirectState
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.motions import invert_rigid, se3_exp
from frozenmm.reconstruction.photometry import View, image_shift, see

DIRECT = AlignSettings(mode='direct', direct=DirectSettings(points=300, steps=(4, 3)))


def _path_error(poses, room):
    truth = torch.from_numpy(room.poses_c2w[:, :3, 3])
    path = float(truth.diff(dim=0).norm(dim=1).sum())
    return trajectory_errors(torch.from_numpy(poses[:, :3, 3]), truth)['ate_rmse'] / path


def test_a_generated_room_is_recovered_without_features(room, rooms):
    result = align(room.images, rooms.distort_depth(room.depth), settings=DIRECT)
    assert _path_error(result.poses_c2w, room) < 0.02
    assert abs(result.focal_px / room.focal_px - 1) < 0.05
    assert result.warnings == [] and len(result.reprojection) == 0


def test_given_poses_are_kept_and_give_the_unit(room, rooms):
    known = KnownCamera(focal_px=room.focal_px, poses_c2w=room.poses_c2w)
    result = align(room.images, rooms.distort_depth(room.depth), known=known, settings=DIRECT)
    np.testing.assert_allclose(result.poses_c2w, room.poses_c2w, atol=1e-6)
    assert 0.9 < np.median(result.depth / room.depth) < 1.1


def test_rows_equal_finite_differences():
    generator = torch.Generator().manual_seed(0)
    size, focal, eps = (48, 64), 60.0, 1e-6
    pixels = torch.rand(1, 20, 2, generator=generator, dtype=torch.float64) * 40 + 8
    log_depth = torch.rand(1, 20, generator=generator, dtype=torch.float64) * 0.3 + 0.7
    relative = se3_exp(torch.randn(1, 1, 6, generator=generator, dtype=torch.float64) * 0.05)
    weights = torch.randn(2, generator=generator, dtype=torch.float64)
    rows = see(pixels, log_depth, relative, focal, size, step=1).rows(weights.expand(1, 1, 20, 5, 2))

    def value(motion, log_focal, log_z):
        longer = focal * float(np.exp(log_focal))
        moved = see(pixels, log_depth + log_z, se3_exp(motion) @ relative, longer, size, step=1)
        return (moved.pixels * weights).sum(-1)

    for column in range(8):
        change = torch.zeros(8, dtype=torch.float64)
        change[column] = eps
        numeric = (value(change[:6], change[6], change[7]) - value(-change[:6], -change[6], -change[7])) / (2 * eps)
        torch.testing.assert_close(rows[..., column], numeric, rtol=1e-4, atol=1e-5)


def test_the_shift_of_an_image_is_found():
    image = torch.rand(30, 40, generator=torch.Generator().manual_seed(0))
    assert image_shift(image[4:24, 5:35], image[2:22, 8:38]) == (-3.0, 2.0)


def test_a_view_gives_values_and_slopes_in_full_pixels():
    ramp = (torch.arange(32).double()[None] * 0.5 + torch.arange(24).double()[:, None])[None]
    found = View(ramp, 4).look(torch.tensor([0]), torch.tensor([[13.5, 9.5]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[16.25, 0.5, 1.0]], dtype=torch.float64))


def test_a_frame_is_placed_between_its_neighbours(room):
    frozen = FrozenDepth(room.depth)
    solver = DirectSolver(room.images, frozen, DirectSettings(points=300), log_focal_prior=np.log(room.focal_px))
    poses = invert_rigid(torch.from_numpy(room.poses_c2w))
    depth = torch.zeros(5, 27, dtype=torch.float64)
    state = DirectState(poses.clone(), float(np.log(room.focal_px)), depth, torch.zeros(5, 0))
    state.poses[2] = poses[1]
    placed, share = solver.place(state, 2, [1, 3], [poses[1]])
    off = placed.poses[2] @ torch.from_numpy(room.poses_c2w[2])
    assert share > 0.6 and off[:3, 3].norm() < 0.02


def test_options_that_a_mode_lacks_are_refused(room, rooms):
    depth = rooms.distort_depth(room.depth)
    with pytest.raises(ValueError, match='mode compat finds the poses itself'):
        align(room.images, depth, settings=AlignSettings(mode='compat'), known=KnownCamera(poses_c2w=room.poses_c2w))
    with pytest.raises(ValueError, match='for disparity use mode tracks or direct'):
        align(room.images, depth, kind='affine_disparity', settings=AlignSettings(mode='compat'))
    with pytest.raises(ValueError, match='one per frame'):
        align(room.images, depth, known=KnownCamera(poses_c2w=room.poses_c2w[:3]))
    with pytest.raises(ValueError, match='no rigid motions'):
        align(room.images, depth, known=KnownCamera(poses_c2w=2 * room.poses_c2w))
    with pytest.raises(ValueError, match='no poses are given'):
        KnownCamera().poses_w2c()
    with pytest.raises(ValueError, match='metric_scale must be positive'):
        align(room.images, depth, known=KnownCamera(metric_scale=-1.0))
