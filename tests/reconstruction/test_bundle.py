from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from frozenmm.reconstruction import frame_system
from frozenmm.reconstruction.bundle import COLUMNS, NO_DEPTH, SHARED, Bundle, BundleSettings, BundleState
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth, bilinear, hats_at
from frozenmm.reconstruction.features import Tracks
from frozenmm.reconstruction.motions import se3_exp

SIZE, FOCAL = (48, 64), 60.0


def _scene(kind='affine_depth', frames=4, points=80, noise=0.0):
    """Points on a wavy surface with exact cameras, observations and affine depth."""
    random = np.random.default_rng(0)
    world = np.stack((random.uniform(-1, 1, points), random.uniform(-0.7, 0.7, points),
                      random.uniform(2, 3, points)), 1)
    motion = np.concatenate((random.uniform(-0.3, 0.3, (frames, 3)), random.uniform(-0.05, 0.05, (frames, 3))), 1)
    motion[0] = 0
    poses = se3_exp(torch.from_numpy(motion)).numpy()
    frame, point = np.tile(np.arange(frames), points), np.repeat(np.arange(points), frames)
    camera = np.einsum('oij,oj->oi', poses[frame, :3, :3], world[point]) + poses[frame, :3, 3]
    pixels = FOCAL * camera[:, :2] / camera[:, 2:] + np.array([31.5, 23.5])
    inside = ((pixels >= 0) & (pixels <= np.array([63, 47]))).all(1)
    tracks, old, kept = Tracks(frame, point, pixels + noise * random.normal(size=pixels.shape)).subset(inside)
    base = 1.5 + 0.2 * random.normal(size=(frames, *SIZE))
    depth = FrozenDepth(np.abs(base) + 0.2, kind)
    parameters = DepthParameters(np.zeros(frames), np.full(frames, 0.3))
    return tracks, depth, BundleState(poses, np.log(FOCAL), parameters, world[old])


def _bundle(tracks, depth, **options):
    return Bundle(tracks, depth, log_focal_prior=np.log(FOCAL), unit=1.0, settings=BundleSettings(**options))


@pytest.mark.parametrize('kind, lens', [('affine_depth', np.zeros(4)),
                                        ('affine_disparity', np.array([0.2, -0.1, 0.05, -0.02]))])
def test_jacobians_equal_finite_differences(kind, lens):
    tracks, depth, state = _scene(kind, noise=0.5)
    state = dataclasses.replace(state, lens=lens)
    bundle = _bundle(tracks, depth, pixel=1e6, log_depth=1e6)  # so wide that robust weights are constant
    cameras, shared, points, _ = bundle._jacobians(state)
    random, eps = np.random.default_rng(1), 1e-6
    step, shared_step = random.normal(size=(len(depth.maps), COLUMNS)), random.normal(size=SHARED)
    point_step = random.normal(size=state.points.shape)
    sides = []
    for sign in (1, -1):
        moved = bundle._apply(state, sign * eps * step, sign * eps * shared_step, sign * eps * point_step)
        _, pixels, log_depth = bundle.residuals(moved)
        sides.append(np.concatenate((pixels, log_depth[:, None]), 1) / 1e6)
    numeric = (sides[0] - sides[1]) / (2 * eps)
    analytic = (np.einsum('okd,od->ok', cameras, step[tracks.frame]) + shared @ shared_step
                + np.einsum('okd,od->ok', points, point_step[tracks.point]))
    np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-9 * np.abs(numeric).max() + 1e-12)


@pytest.mark.parametrize('dense_up_to', [2000, 0])
def test_the_eliminated_system_gives_the_step_of_the_full_one(dense_up_to, monkeypatch):
    monkeypatch.setattr(frame_system, 'DENSE_UP_TO', dense_up_to)
    monkeypatch.setattr(frame_system, 'TOLERANCE', 1e-12)
    tracks, depth, state = _scene(noise=0.3, points=25)
    bundle = _bundle(tracks, depth, fixed_radial=False, fixed_principal=False)
    pull = bundle.shift_pull(state)
    step, shared_step, point_step = bundle._solve(bundle._linearise(state, pull), 0.1)
    cameras, shared, points, residual = bundle._jacobians(state)
    frames, d, count = len(depth.maps), COLUMNS, len(state.points)
    ends = np.cumsum([frames * d, SHARED, 3 * count])
    whole = np.zeros((len(tracks), 3, ends[2]))
    for index, (frame, point) in enumerate(zip(tracks.frame, tracks.point)):
        whole[index, :, frame * d:(frame + 1) * d] = cameras[index]
        whole[index, :, ends[0]:ends[1]] = shared[index]
        whole[index, :, ends[1] + 3 * point:ends[1] + 3 * point + 3] = points[index]
    whole, residual = whole.reshape(-1, whole.shape[2]), residual.reshape(-1)
    matrix, gradient = whole.T @ whole, whole.T @ residual
    prior = np.concatenate((bundle._prior(state, pull).reshape(2, -1), bundle._shared_prior(state)), 1)
    matrix[np.arange(ends[1]), np.arange(ends[1])] += prior[0]
    gradient[:ends[1]] += prior[1]
    matrix[np.diag_indices(len(matrix))] *= 1.1
    free = np.arange(7, len(matrix))  # pose and scale of the first frame are fixed
    expected = np.zeros(len(matrix))
    expected[free] = -np.linalg.solve(matrix[np.ix_(free, free)], gradient[free])
    np.testing.assert_allclose(step.ravel(), expected[:ends[0]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(shared_step, expected[ends[0]:ends[1]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(point_step.ravel(), expected[ends[1]:], rtol=1e-4, atol=1e-6)


def test_windows_solve_a_long_chain_with_a_loop(monkeypatch):
    random, frames, d = np.random.default_rng(0), 50, 3
    system = frame_system.FrameSystem(frames, d, 1)
    whole = np.zeros((frames * d, frames * d))
    for a in range(frames):
        for b in (a, (a + 1) % frames, (a + 4) % frames):
            rows = np.zeros((5, frames * d))
            rows[:, a * d:a * d + d], rows[:, b * d:b * d + d] = random.normal(size=(2, 5, d))
            whole += rows.T @ rows
    for a in range(frames):
        for b in range(a, frames):
            if np.abs(whole[a * d:a * d + d, b * d:b * d + d]).max() > 0:
                system.add(b, a, whole[b * d:b * d + d, a * d:a * d + d])
    system.gradient += random.normal(size=(frames, d))
    system.corner += 2.0
    system.border += 0.01
    system.shared_gradient += 1.0
    system.damp(1e-3)
    monkeypatch.setattr(frame_system, 'TOLERANCE', 1e-10)
    free = np.ones((frames, d), dtype=bool)
    free[0] = False
    step, shared = system.solve(free, np.array([True]))
    damped = whole.copy()
    damped[np.diag_indices(len(whole))] *= 1 + 1e-3
    rest = damped @ step.ravel() + system.border[..., 0].ravel() * shared[0] + system.gradient.ravel()
    assert np.abs(rest[d:]).max() < 1e-6 and not step[0].any()


@pytest.mark.parametrize('lens, fixed', [([-0.15, 0.05, 0.0, 0.0], 'principal'), ([0.0, 0.0, 0.08, -0.05], 'radial')])
def test_a_lens_is_found(lens, fixed):
    tracks, depth, truth = _scene(frames=6, points=200)
    bent = dataclasses.replace(truth, lens=np.array(lens))
    offset = _bundle(tracks, depth).residuals(bent)[1]
    tracks = dataclasses.replace(tracks, pixels=tracks.pixels + offset)
    free = {'fixed_radial': fixed == 'radial', 'fixed_principal': fixed == 'principal'}
    bundle = _bundle(tracks, depth, log_depth=10.0, radial=1.0, principal=1.0, fixed_focal=True, **free)
    state, _ = bundle.optimise(truth, steps=40, tolerance=1e-12)
    np.testing.assert_allclose(state.lens, lens, atol=0.01)


def test_the_error_of_the_focal_length_falls_with_the_points_and_is_none_where_it_is_given():
    few, many = (_bundle(tracks, depth).focal_error(state) for tracks, depth, state in (
        _scene(noise=0.3, points=count) for count in (40, 640)))
    assert few / many == pytest.approx(4, rel=0.5)
    tracks, depth, state = _scene(noise=0.3)
    assert _bundle(tracks, depth, fixed_focal=True).focal_error(state) == 0


def test_depth_that_is_missing_or_bad_has_no_pull():
    tracks, depth, state = _scene(noise=0.3)
    first = (np.arange(len(depth.maps)) < 1)[:, None, None]
    holes = FrozenDepth(np.where(first, np.nan, depth.maps))
    bundle = _bundle(tracks, holes)
    assert (bundle.known == (tracks.frame != 0)).all()
    wide = Bundle(tracks, depth, log_focal_prior=np.log(FOCAL), unit=1.0, settings=BundleSettings(),
                  depth_width=np.where(np.arange(len(depth.maps)) < 1, NO_DEPTH, 0.1))
    np.testing.assert_array_equal(bundle.width, wide.width)
    np.testing.assert_allclose(bundle.shift_pull(state)[0], 0, atol=1e-9)


def test_disturbed_cameras_come_back():
    tracks, depth, truth = _scene()
    # depth that agrees with the points
    bundle = _bundle(tracks, depth, log_depth=10.0)
    disturbed = dataclasses.replace(truth, points=truth.points * 1.03,
                                    poses=se3_exp(torch.full((4, 6), 0.01).double()).numpy() @ truth.poses)
    state, cost = bundle.optimise(disturbed, steps=30, tolerance=1e-12)
    assert cost < 0.2 * bundle.cost(disturbed)
    assert np.abs(bundle.residuals(state)[1]).max() < 0.02


@pytest.mark.parametrize('kind, error', [('affine_depth', 0.1), ('affine_disparity', 0.1), ('affine_depth', 0.4)])
def test_the_shift_is_not_drawn_up_by_errors_of_the_prediction(kind, error, monkeypatch):
    tracks, _, state = _scene(frames=6, points=2000)
    frames, random = len(state.poses), np.random.default_rng(3)
    true = np.repeat(np.geomspace(0.8, 8, SIZE[1])[None], SIZE[0], 0)
    noisy = true * np.exp(error * random.normal(size=(frames, *SIZE)))
    depth = FrozenDepth(noisy - 0.4 if kind == 'affine_depth' else 1 / noisy - 0.05, kind)
    shift = (0.4 if kind == 'affine_depth' else 0.05) / depth.medians
    tracks = dataclasses.replace(tracks, pixels=np.clip(np.rint(tracks.pixels), 0, np.array(SIZE[::-1]) - 1))
    z = true[tuple(tracks.pixels.astype(int).T[::-1])]
    # cameras and points are known: every observation sees the true depth
    monkeypatch.setattr(Bundle, 'residuals', lambda self, state: (
        np.stack((z, z, z), 1), np.zeros((len(z), 2)), np.log(z) - self.log_depth(state)[0]))

    def solved() -> float:
        bundle = _bundle(tracks, depth, log_depth=0.3, fixed_poses=True, fixed_focal=True)
        start = dataclasses.replace(state, depth=dataclasses.replace(state.depth, shift=shift.copy()))
        return np.mean(bundle.optimise(start, steps=30, tolerance=1e-12)[0].depth.shift / shift)

    pulled = solved()
    monkeypatch.setattr(Bundle, 'shift_pull', lambda self, state: np.zeros(frames))
    plain = solved()
    if error < 0.3:
        assert abs(pulled - 1) < 0.03 and plain > 1.15
    else:  # such a prediction is better taken for flat
        assert pulled == plain > 4


def test_a_given_focal_length_stays():
    tracks, depth, state = _scene(noise=0.5)
    solved, _ = _bundle(tracks, depth, fixed_focal=True).optimise(state, steps=3)
    assert solved.log_focal == state.log_focal


def test_hats_sum_to_one_and_samples_hit_pixels():
    pixels = np.random.default_rng(0).uniform(0, 47, (20, 2))
    np.testing.assert_allclose(hats_at(pixels, SIZE, (5, 7)).sum(1), 1)
    maps = np.random.default_rng(1).uniform(size=(2, *SIZE))
    np.testing.assert_allclose(bilinear(maps, np.array([1, 0]), np.array([[63.0, 47.0], [5.0, 7.0]])),
                               [maps[1, 47, 63], maps[0, 7, 5]])


def test_depth_that_cannot_be_used_is_refused():
    with pytest.raises(ValueError, match='kind must be one of'):
        FrozenDepth(np.ones((2, 8, 8)), 'disparity')
    with pytest.raises(ValueError, match=r'shape \(F, H, W\)'):
        FrozenDepth(np.ones((8, 8)))
    with pytest.raises(ValueError, match='frame 0 has the median -1'):
        FrozenDepth(np.full((3, 8, 8), -1.0))
    with pytest.raises(ValueError, match='the depth holds no value at all'):
        FrozenDepth(np.zeros((3, 8, 8)))


def test_missing_depth_takes_the_nearest_value_and_is_remembered():
    maps = np.ones((3, 8, 8))
    maps[1, 2, 2:4], maps[1, :, 5:], maps[2] = (np.nan, 0), 3, np.inf
    depth = FrozenDepth(maps)
    assert depth.missing is not None and depth.missing.sum() == 2 + 64
    assert depth.maps[1, 2, 2] == 1 and np.isfinite(depth.maps).all() and depth.medians[1] == 1
    assert depth.known_at(np.array([1, 1]), np.array([[2.2, 1.8], [6.0, 2.0]])).tolist() == [False, True]
    assert FrozenDepth(maps[:2], 'affine_disparity').missing.sum() == 1  # 0 is far away
    np.testing.assert_array_equal(depth.part(np.array([1])).missing, depth.missing[1:2])
