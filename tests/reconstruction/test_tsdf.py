from __future__ import annotations

import pytest
import torch

from frozenmm.reconstruction.tsdf import TSDFVolume, frustum_bounds, mask_border

K = torch.tensor([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]], dtype=torch.float64)


def _plane_volume(colour=200):
    depth = torch.full((1, 48, 64), 1.0)
    bounds = frustum_bounds(depth, K, torch.eye(4)[None])
    bounds[2, 1] += 0.3
    volume = TSDFVolume(bounds, voxel_size=0.04)
    volume.integrate(depth[0], torch.full((48, 64, 3), colour, dtype=torch.uint8), K, torch.eye(4))
    return volume


def test_a_fused_plane_crosses_zero_at_its_depth():
    mesh = _plane_volume().extract_mesh()
    inner = abs(mesh.vertices[:, :2]).max(1) < 0.25
    assert abs(mesh.vertices[inner, 2] - 1.0).max() < 0.1 * 0.04
    assert (mesh.colours[inner] == 200).all()


def test_unseen_voxels_keep_weight_zero_and_distance_one():
    volume = _plane_volume()
    unseen = volume.weight == 0
    assert unseen.any() and volume.distance[unseen].eq(1).all()


def test_the_border_mask_leaves_the_given_depth_alone():
    depth = torch.ones(10, 12)
    masked = mask_border(depth, 3)
    assert depth.eq(1).all() and masked.sum() == 4 * 6


def test_errors_say_what_to_change():
    with pytest.raises(ValueError, match='voxel_size must be positive'):
        TSDFVolume(torch.tensor([[0, 1.0]] * 3), voxel_size=0)
    with pytest.raises(ValueError, match='use larger voxels'):
        TSDFVolume(torch.tensor([[0, 1.0]] * 3), voxel_size=1e-4)
    with pytest.raises(ValueError, match='is all depth 0'):
        TSDFVolume(torch.zeros(3, 2), voxel_size=0.1)
    with pytest.raises(ValueError, match='no surface'):
        TSDFVolume(torch.tensor([[0, 1.0]] * 3), voxel_size=0.2).extract_mesh()
    with pytest.raises(ValueError, match='a border of 5 pixels leaves nothing'):
        mask_border(torch.ones(10, 12), 5)
