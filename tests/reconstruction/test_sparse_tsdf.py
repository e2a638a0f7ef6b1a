from __future__ import annotations

import numpy as np
import pytest
import torch

import frozenmm.reconstruction.sparse_tsdf as sparse_tsdf
from frozenmm.reconstruction.mesh import Mesh, component_of_faces, drop_specks, largest_share, sample_surface
from frozenmm.reconstruction.render import outside_view, render_mesh
from frozenmm.reconstruction.sparse_tsdf import BLOCK, SparseTSDF, _blocks, fuse_frames
from frozenmm.reconstruction.tsdf import TSDFVolume, frustum_bounds

VOXEL = 0.06


@pytest.fixture(scope='module')
def frames(room):
    height, width = room.depth.shape[1:]
    focal = room.focal_px
    intrinsics = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]],
                              dtype=torch.float64)
    # a world that is aligned with no camera, so that voxels do not project to borders between pixels
    cosine, sine = np.cos(0.37), np.sin(0.37)
    world = np.array([[cosine, 0.0, sine, 0.113], [0, 1, 0, 0.0271], [-sine, 0, cosine, -0.057], [0, 0, 0, 1]])
    return (torch.from_numpy(room.depth), torch.from_numpy(room.images), intrinsics,
            torch.from_numpy(world @ room.poses_c2w))


@pytest.fixture(scope='module')
def volume(frames):
    return fuse_frames(*frames, voxel_size=VOXEL)


def test_voxels_hold_what_a_dense_volume_holds(frames, volume):
    depth, colour, intrinsics, poses = frames
    bounds = frustum_bounds(depth, intrinsics, poses)
    # the dense grid starts at a whole voxel, so that both grids have the same corners; the rim covers whole blocks
    start = (bounds[:, 0] / VOXEL).floor() - 2 * BLOCK
    dense = TSDFVolume(torch.stack((start * VOXEL, bounds[:, 1] + 2 * BLOCK * VOXEL), 1), voxel_size=VOXEL)
    for index in range(len(depth)):
        dense.integrate(depth[index], colour[index], intrinsics, poses[index])
    blocks = _blocks(volume.keys)[:, None] * BLOCK + volume._inside
    x, y, z = (blocks.reshape(-1, 3) - start.long()).unbind(1)
    # a voxel that projects to the border between two pixels may fall to either side
    same = (dense.weight[x, y, z] == volume.weight.flatten())
    assert same.float().mean() > 0.999
    torch.testing.assert_close(dense.distance[x, y, z][same], volume.distance.flatten()[same], atol=0.02, rtol=0)


def test_the_surface_is_where_the_depth_says(frames, volume):
    depth, _, intrinsics, poses = frames
    mesh = volume.extract_mesh()
    for index in (0, 4):
        _, seen = render_mesh(mesh, intrinsics.numpy(), poses[index].numpy(), depth.shape[1:])
        assert (np.abs(seen - depth[index].numpy()) < 2 * VOXEL).mean() > 0.93


def test_pieces_of_the_mesh_are_joined(frames):
    """Vertices on the border of two pieces are shared: a floor across several pieces is one part without a seam."""
    depth = torch.full((1, 200, 200), 2.0)
    intrinsics = torch.tensor([[60.0, 0, 99.5], [0, 60.0, 99.5], [0, 0, 1]], dtype=torch.float64)
    colour = torch.full((1, 200, 200, 3), 90, dtype=torch.uint8)
    mesh = fuse_frames(depth, colour, intrinsics, torch.eye(4)[None], voxel_size=0.05).extract_mesh()
    assert np.ptp(mesh.vertices[:, 0]) > 2 * 8 * BLOCK * 0.05 * 0.9  # two pieces and more
    assert largest_share(mesh) == 1.0
    edges = np.sort(np.concatenate((mesh.faces[:, :2], mesh.faces[:, 1:], mesh.faces[:, ::2])), 1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 2 and (count == 1).sum() < 0.02 * len(count)  # open at the rim of the view only
    np.testing.assert_allclose(mesh.vertices[:, 2], 2.0, atol=0.005)
    assert (mesh.colours == 90).all()


def test_memory_follows_the_surface(volume, frames):
    depth, _, intrinsics, poses = frames
    extent = frustum_bounds(depth, intrinsics, poses)
    dense = float((extent[:, 1] - extent[:, 0]).prod()) / VOXEL**3
    assert volume.weight.numel() < 0.7 * dense
    fine = fuse_frames(*frames, voxel_size=VOXEL / 2)
    assert len(fine) < 5.5 * len(volume)  # four times for a surface, eight for a volume


def test_nothing_is_closed_where_nobody_looked(frames):
    depth = frames[0].clone()
    depth[:, :, 60:100] = 0
    mesh = fuse_frames(depth[:1], frames[1][:1], frames[2], frames[3][:1], voxel_size=VOXEL).extract_mesh()
    _, seen = render_mesh(mesh, frames[2].numpy(), frames[3][0].numpy(), depth.shape[1:])
    assert (seen[:, 66:94] == 0).all()


def test_specks_go_and_the_rest_stays():
    strip = np.array([[i, i + 1, i + 2] for i in range(10)])
    faces = np.concatenate((strip, [[20, 21, 22]]))
    mesh = Mesh(np.random.default_rng(0).random((30, 3)).astype(np.float32), faces, np.arange(90).reshape(30, 3))
    part, count = component_of_faces(mesh)
    assert sorted(count.tolist()) == [1, 10] and largest_share(mesh) == 10 / 11
    kept = drop_specks(mesh, 2)
    assert len(kept.faces) == 10 and len(kept.vertices) == 12
    np.testing.assert_array_equal(kept.vertices[kept.faces], mesh.vertices[strip])
    assert len(drop_specks(mesh, 10).faces) == 10 and len(drop_specks(mesh, 11).faces) == 0
    assert len(drop_specks(mesh, 1).faces) == len(drop_specks(mesh, 0).faces) == 11


def test_samples_lie_on_the_faces_in_proportion_to_their_area():
    vertices = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 5], [1, 0, 5], [0, 1, 5]], np.float32)
    mesh = Mesh(vertices, np.array([[0, 1, 2], [3, 4, 5]]), np.zeros((6, 3), np.uint8))
    points = sample_surface(mesh, 4000, seed=3)
    near = points[:, 2] == 0
    assert abs(near.mean() - 0.8) < 0.03
    assert (points[near, 0] + points[near, 1] <= 2 + 1e-9).all() and (points[~near, 2] == 5).all()
    with pytest.raises(ValueError, match='has no surface to sample'):
        sample_surface(Mesh(vertices, np.zeros((0, 3), int), mesh.colours), 10)


def test_a_rendered_triangle_has_the_depth_of_its_plane():
    vertices = np.array([[-2, -2, 2], [3, -2, 4], [-2, 3, 3]], np.float32)
    mesh = Mesh(vertices, np.array([[0, 1, 2], [0, 1, 1]]), np.array([[255, 0, 0]] * 3, np.uint8))
    intrinsics = np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]])
    colour, depth = render_mesh(mesh, intrinsics, np.eye(4), (48, 64))
    normal = np.cross(vertices[1] - vertices[0], vertices[2] - vertices[0])
    v, u = np.nonzero(depth)
    rays = np.stack(((u - 31.5) / 40, (v - 23.5) / 40, np.ones(len(u))), 1)
    np.testing.assert_allclose(depth[v, u], vertices[0] @ normal / (rays @ normal), rtol=1e-6)
    assert len(v) > 500 and (colour[v, u] == [255, 0, 0]).all() and (colour[depth == 0] == 255).all()


def test_the_nearer_surface_hides_the_other():
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    vertices = np.concatenate((square + [0, 0, 3], square * 0.3 + [0, 0, 2])).astype(np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    intrinsics = np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]])
    for order in (faces, faces[::-1]):
        _, depth = render_mesh(Mesh(vertices, order, np.zeros((8, 3), np.uint8)), intrinsics, np.eye(4), (48, 64))
        assert depth[24, 32] == pytest.approx(2) and depth[24, 42] == pytest.approx(3) and depth[24, 60] == 0


def test_the_outside_view_shows_the_whole_scene(volume, frames):
    mesh = volume.extract_mesh()
    intrinsics, pose = outside_view(mesh, frames[3].numpy(), (96, 128))
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    camera = (mesh.vertices - pose[:3, 3]) @ pose[:3, :3]
    pixels = camera[:, :2] / camera[:, 2:] * intrinsics[0, 0] + intrinsics[:2, 2]
    assert ((pixels > 0) & (pixels < [128, 96])).all(1).mean() > 0.97


def test_errors_say_what_to_change(frames, monkeypatch):
    with pytest.raises(ValueError, match='must be positive, got -1'):
        SparseTSDF(voxel_size=-1)
    with pytest.raises(ValueError, match='no surface'):
        SparseTSDF(voxel_size=0.1).extract_mesh()
    depth, _, intrinsics, poses = frames
    with pytest.raises(ValueError, match='use larger voxels or cut the depth off'):
        SparseTSDF(voxel_size=1e-7).allocate(depth[0], intrinsics, poses[0])
    monkeypatch.setattr(sparse_tsdf, 'MAX_BLOCKS', 50)
    with pytest.raises(ValueError, match='needs more than 50 blocks of 8x8x8 voxels of 0.06; use larger voxels'):
        SparseTSDF(voxel_size=VOXEL).allocate(depth[0], intrinsics, poses[0])
