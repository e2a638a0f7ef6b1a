"""Our measures against the packages that others use: evo for camera paths, trimesh for surfaces."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from evo.core.metrics import APE, RPE, PoseRelation, Unit
from evo.core.trajectory import PosePath3D

from frozenmm.evaluation.surface import focal_error_percent, surface_errors
from frozenmm.evaluation.trajectory import fit_similarity, relative_errors, trajectory_errors
from frozenmm.reconstruction.mesh import Mesh, component_of_faces, largest_share, sample_surface
from frozenmm.reconstruction.motions import se3_exp
from frozenmm.reconstruction.outputs import read_ply, write_ply


def path(seed, frames=30, noise=0.05):
    """A walk (F, 4, 4), and the same in another frame and scale with noise."""
    draw = torch.Generator().manual_seed(seed)
    moves = se3_exp(torch.randn(frames, 6, generator=draw, dtype=torch.float64) * 0.2)
    truth = [torch.eye(4, dtype=torch.float64)]
    for move in moves:
        truth.append(truth[-1] @ move)
    truth = torch.stack(truth)
    found = truth @ se3_exp(torch.randn(len(truth), 6, generator=draw, dtype=torch.float64) * noise)
    world = se3_exp(torch.randn(1, 6, generator=draw, dtype=torch.float64))[0]
    found[:, :3, 3] *= 0.37
    return world @ found, truth


def with_evo(found, truth, *, correct_scale):
    estimate, reference = (PosePath3D(poses_se3=list(poses.numpy())) for poses in (found, truth))
    estimate.align(reference, correct_scale=correct_scale)
    return estimate, reference


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('scale', [True, False])
def test_ate_is_evos(seed, scale):
    found, truth = path(seed)
    estimate, reference = with_evo(found, truth, correct_scale=scale)
    ape = APE(PoseRelation.translation_part)
    ape.process_data((reference, estimate))
    ours = trajectory_errors(found[:, :3, 3], truth[:, :3, 3], with_scale=scale)
    wanted = ape.get_all_statistics()
    assert ours['ate_rmse'] == pytest.approx(wanted['rmse'], rel=1e-9)
    assert ours['ate_mean'] == pytest.approx(wanted['mean'], rel=1e-9)
    assert ours['ate_max'] == pytest.approx(wanted['max'], rel=1e-9)


@pytest.mark.parametrize('step', [1, 4])
def test_rpe_is_evos(step):
    found, truth = path(5)
    estimate, reference = with_evo(found, truth, correct_scale=True)
    ours = relative_errors(found, truth, step=step)
    for relation, key, statistic in ((PoseRelation.rotation_angle_deg, 'rpe_rotation_deg', 'mean'),
                                     (PoseRelation.translation_part, 'rpe_translation', 'rmse')):
        rpe = RPE(relation, delta=step, delta_unit=Unit.frames, all_pairs=True)
        rpe.process_data((reference, estimate))
        assert ours[key] == pytest.approx(rpe.get_all_statistics()[statistic], rel=1e-6)


def test_rotations_of_a_recording_are_made_orthonormal_first():
    """Rounded matrices give an angle of their own in the trace formula; ours stays at that of the rotation."""
    _, truth = path(1)
    rounded = truth.clone()
    rounded[:, :3, :3] = (rounded[:, :3, :3] * 2000).round() / 2000
    assert relative_errors(rounded, truth)['rpe_rotation_deg'] < 0.05


def spheres(radius):
    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(np.asarray(ball.vertices, np.float32), np.asarray(ball.faces), np.zeros((len(ball.vertices), 3),
                                                                                        np.uint8)), ball


def test_distances_between_surfaces_are_trimeshs():
    ours, _ = spheres(1.0)
    _, theirs = spheres(1.1)
    points = sample_surface(ours, 3000)
    _, exact, _ = trimesh.proximity.closest_point_naive(theirs, points[:200])
    dense = trimesh.sample.sample_surface(theirs, 200_000, seed=0)[0]
    errors = surface_errors(points[:200], dense, threshold=0.105)
    # points are denser than 0.01 apart, so the distance to the nearest one is that to the surface within 1 %
    assert errors['accuracy'] == pytest.approx(exact.mean(), rel=0.01)
    assert errors['precision'] == pytest.approx((exact < 0.105).mean(), abs=0.01)
    both = surface_errors(sample_surface(ours, 50_000), dense, threshold=0.105)
    assert both['chamfer_l1'] == pytest.approx(0.1, rel=0.02)
    assert both['f_score'] == 1.0
    assert surface_errors(points, dense, threshold=0.09)['f_score'] == 0.0


def test_f_score_is_the_harmonic_mean():
    line = np.stack((np.arange(10.0), np.zeros(10), np.zeros(10)), 1)
    errors = surface_errors(line[:4], line, threshold=0.5)
    assert errors['precision'] == 1 and errors['recall'] == 0.4 and errors['f_score'] == pytest.approx(0.8 / 1.4)
    assert errors['accuracy'] == 0 and errors['completeness'] == pytest.approx(2.1)
    assert errors['chamfer_l1'] == pytest.approx(1.05)


def test_parts_and_areas_are_trimeshs():
    a, _ = spheres(1.0)
    faces = np.concatenate((a.faces, a.faces[:50] + len(a.vertices)))
    vertices = np.concatenate((a.vertices, a.vertices * 0.1 + 5))
    mesh = Mesh(vertices, faces, np.zeros((len(vertices), 3), np.uint8))
    theirs = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    label = trimesh.graph.connected_component_labels(theirs.edges, node_count=len(mesh.vertices))[faces[:, 0]]
    assert sorted(np.unique(label, return_counts=True)[1]) == sorted(component_of_faces(mesh)[1]) == [50, 5120]
    assert largest_share(mesh) == 5120 / 5170
    upper = sample_surface(a, 50_000)[:, 2] > 0.5
    assert upper.mean() == pytest.approx(0.25, abs=0.01)  # of a sphere's area


def test_our_files_open_in_trimesh(tmp_path):
    mesh, _ = spheres(0.7)
    mesh.colours[:] = np.random.default_rng(0).integers(0, 255, mesh.colours.shape)
    loaded = trimesh.load(write_ply(tmp_path / 'ball.ply', mesh), process=False)
    np.testing.assert_array_equal(np.asarray(loaded.vertices, np.float32), mesh.vertices)
    np.testing.assert_array_equal(loaded.faces, mesh.faces)
    np.testing.assert_array_equal(loaded.visual.vertex_colors[:, :3], mesh.colours)
    back = read_ply(tmp_path / 'ball.ply')
    np.testing.assert_array_equal(back.faces, mesh.faces)
    np.testing.assert_array_equal(back.colours, mesh.colours)
    cloud = Mesh(mesh.vertices, np.zeros((0, 3), np.int64), mesh.colours)
    loaded = trimesh.load(write_ply(tmp_path / 'points.ply', cloud))
    np.testing.assert_array_equal(np.asarray(loaded.vertices, np.float32), mesh.vertices)
    assert len(read_ply(tmp_path / 'points.ply').faces) == 0
    (tmp_path / 'ball.ply').write_bytes((tmp_path / 'ball.ply').read_bytes()[:-5])
    with pytest.raises(ValueError, match='no complete PLY file of this package'):
        read_ply(tmp_path / 'ball.ply')
    with pytest.raises(FileNotFoundError, match='there is no file'):
        read_ply(tmp_path / 'nothing.ply')


def test_similarity_recovers_scale_and_focal_error_has_a_sign():
    found, truth = path(2, noise=0)
    assert float(fit_similarity(found[:, :3, 3], truth[:, :3, 3]).scale) == pytest.approx(1 / 0.37)
    assert focal_error_percent(190, 200) == pytest.approx(-5)


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match='the true focal length must be positive'):
        focal_error_percent(1, 0)
    with pytest.raises(ValueError, match=r'points must be at least one point \(N, 3\)'):
        surface_errors(np.zeros((0, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match='threshold must be positive'):
        surface_errors(np.zeros((1, 3)), np.zeros((2, 3)), threshold=0)
