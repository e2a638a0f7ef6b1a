from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from frozenmm.reconstruction.cameras import invert_intrinsics, pixel_grid
from frozenmm.reconstruction.motions import invert_rigid, se3_exp
from frozenmm.reconstruction.pair_sampling import PairDraw
from frozenmm.reconstruction.warp import (
    Frames,
    anchor_norm,
    geometric_residuals,
    normalise_pixels,
    photometric_residuals,
    sample,
    trimmed_mean,
    warp,
)

SIZE = (24, 32)
K = torch.tensor([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]], dtype=torch.float64)


def _plane_views():
    """Two views of the plane z = 2 (in the first camera) whose colour is linear in x and y."""
    poses = torch.stack((torch.eye(4, dtype=torch.float64),
                         se3_exp(torch.tensor([0.1, -0.05, 0.1, 0.0, 0.03, 0.02], dtype=torch.float64))))
    rays = (pixel_grid(*SIZE) @ invert_intrinsics(K).T).view(*SIZE, 3)
    c2w = invert_rigid(poses)
    directions = rays[None] @ c2w[:, None, :3, :3].mT
    depth = (2 - c2w[:, 2, 3])[:, None, None] / directions[..., 2]
    points = depth[..., None] * directions + c2w[:, None, None, :3, 3]
    colours = 0.5 + 0.1 * torch.stack((points[..., 0], points[..., 1], points[..., 0] - points[..., 1]), 1)
    return colours.float(), depth.float(), poses


def _warp(images, depth, poses, **options):
    draw = PairDraw(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.arange(24 * 32))
    return warp(Frames.of(images, **options), depth, poses, K, draw)


def test_a_rendered_plane_with_known_poses_has_no_loss():
    warped = _warp(*_plane_views())
    assert warped.valid.float().mean() > 0.6
    # bilinear sampling of colours linear in space, seen in slight perspective
    assert photometric_residuals(warped).max() < 1e-4
    assert geometric_residuals(warped).max() < 1e-4


def test_compat_sampling_positions_are_off_by_up_to_half_a_pixel():
    corner = torch.tensor([[0.0, 0.0], [31.0, 23.0]])
    offset = normalise_pixels(corner, SIZE, compat=True) - normalise_pixels(corner, SIZE)
    torch.testing.assert_close(offset * torch.tensor([32.0, 24.0]) / 2, torch.tensor([[-0.5, -0.5], [0.5, 0.5]]))
    images, depth, poses = _plane_views()
    exact, official = _warp(images, depth, poses), _warp(images, depth, poses, compat=True)
    assert geometric_residuals(official).max() > 2 * geometric_residuals(exact).max()


def test_one_factor_on_depth_and_translation_leaves_the_losses(generator):
    images, depth, poses = _plane_views()
    depth = depth * (1 + 0.1 * torch.rand(depth.shape, generator=generator))
    larger = poses.clone()
    larger[:, :3, 3] *= 3
    small, large = _warp(images, depth, poses), _warp(images, 3 * depth, larger)
    torch.testing.assert_close(geometric_residuals(small), geometric_residuals(large), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(photometric_residuals(small), photometric_residuals(large), atol=1e-6, rtol=1e-4)


def test_swapping_frames_swaps_the_pairs():
    images, depth, poses = _plane_views()
    swapped = _warp(images.flip(0), depth.flip(0), poses.flip(0))
    torch.testing.assert_close(swapped.projected_depth.flip(0), _warp(images, depth, poses).projected_depth)


def test_pixels_marked_invalid_count_in_neither_frame():
    images, depth, poses = _plane_views()
    invalid = torch.zeros(2, *SIZE, dtype=torch.bool)
    invalid[0, :, :16] = True
    warped = _warp(images, depth, poses, invalid=invalid)
    assert not warped.valid[0].view(SIZE)[:, :16].any() and warped.valid[0].view(SIZE)[:, 16:].any()
    assert warped.valid[1].sum() < _warp(images, depth, poses).valid[1].sum()


def test_black_pixels_and_missing_depth_are_invalid():
    images, depth, poses = _plane_views()
    images[1], depth[0] = 0, 0
    assert not _warp(images, depth, poses).valid.any()


def test_integer_pixels_are_sampled_exactly(generator):
    maps = torch.rand(1, 1, *SIZE, generator=generator)
    pixels = torch.tensor([[[0.0, 0.0], [31.0, 23.0], [7.0, 5.0]]])
    torch.testing.assert_close(sample(maps, normalise_pixels(pixels, SIZE))[0, 0],
                               torch.stack((maps[0, 0, 0, 0], maps[0, 0, 23, 31], maps[0, 0, 5, 7])))


def test_warp_has_correct_gradients_in_depth_and_motion():
    images, depth, poses = _plane_views()
    pixels = torch.tensor([330, 401, 420])

    def residuals(depth, vector):
        moved = torch.stack((poses[0], se3_exp(vector) @ poses[1]))
        draw = PairDraw(torch.tensor([0]), torch.tensor([1]), pixels)
        warped = warp(Frames.of(images.double()), depth, moved, K, draw)
        return warped.projected_depth, warped.reference_depth, warped.reference_colour

    vector = torch.tensor([0.01, 0.02, -0.01, 0.01, -0.02, 0.01], dtype=torch.float64, requires_grad=True)
    small = depth.double().requires_grad_()
    assert gradcheck(residuals, (small, vector), fast_mode=True)


def test_trimming_agrees_with_the_quantile_and_survives_equal_values(generator):
    values = torch.rand(1001, generator=generator)
    kept = values[values < torch.quantile(values, 0.9)]
    torch.testing.assert_close(trimmed_mean(values, 0.9), kept.mean())
    assert trimmed_mean(torch.full((5, ), 0.25), 0.9) == 0.25
    assert trimmed_mean(torch.zeros(0), 0.9) == 0


def test_anchor_norm_counts_a_frame_once_per_pair():
    anchors = torch.ones(3, 5, 5)
    anchors[1] = 1.1
    value = anchor_norm(anchors, torch.tensor([0, 1]), torch.tensor([1, 2]))
    assert float(value) == pytest.approx(2 * 2.5 / 4, rel=1e-5)
