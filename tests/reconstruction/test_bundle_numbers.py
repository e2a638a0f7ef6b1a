"""The joint solver's cost, pull, weights and steps against formulas written out observation by observation."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from frozenmm.reconstruction.bundle import Bundle, BundleSettings, BundleState
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth
from frozenmm.reconstruction.features import Tracks

SIZE, FOCAL, UNIT = (48, 64), 60.0, 2.0
SHIFTS = np.array([0.2, 0.5, -0.1])
SCALES = np.array([1.0, 1.3, 0.8])
LENS = np.array([0.05, 0.02, 0.01, -0.02])
PIXELS = np.array([[10.0, 12.0], [14.0, 11.5], [40.0, 20.0], [43.0, 22.0], [30.0, 40.0]])


def _problem(kind='affine_depth', points=((-0.7, -0.4, 2.0), (0.3, -0.1, 2.5)), poses=None, **options):
    """Two points in three frames, nothing of which fits exactly, and the state that they are measured at."""
    maps = 1 + np.arange(3 * SIZE[0] * SIZE[1]).reshape(3, *SIZE) / 5000
    depth = FrozenDepth(maps, kind)
    tracks = Tracks(np.array([0, 1, 0, 1, 2]), np.array([0, 0, 1, 1, 1]), PIXELS.copy())
    if poses is None:
        poses = np.tile(np.eye(4), (3, 1, 1))
        poses[1, :3, 3], poses[2, :3, 3] = [0.1, 0.05, 0.1], [-0.2, 0.3, 0.0]
    state = BundleState(poses, math.log(FOCAL), DepthParameters(np.log(SCALES), SHIFTS), np.array(points, float), LENS)
    settings = BundleSettings(**{'fixed_radial': False, **options})
    return Bundle(tracks, depth, log_focal_prior=math.log(50.0), unit=UNIT, settings=settings), state


def _by_hand(bundle, state):
    """Pixel residuals and logarithmic depth residuals, one observation at a time, and the derivative by the shift."""
    rows = []
    sign = -1.0 if bundle.depth.kind == 'affine_disparity' else 1.0
    for frame, point, (u, v) in zip(bundle.tracks.frame, bundle.tracks.point, bundle.tracks.pixels):
        x, y, z = state.poses[frame, :3, :3] @ state.points[point] + state.poses[frame, :3, 3]
        z = max(z, 1e-3)
        squared = (x / z)**2 + (y / z)**2
        stretch = 1 + 0.05 * squared + 0.02 * squared**2
        maps = bundle.depth.maps[frame]
        row, column = int(v), int(u)
        du, dv = u - column, v - row
        value = ((1 - dv) * ((1 - du) * maps[row, column] + du * maps[row, column + 1])
                 + dv * ((1 - du) * maps[row + 1, column] + du * maps[row + 1, column + 1]))
        median = np.median(maps)
        total = value / median + SHIFTS[frame]
        predicted = SCALES[frame] * (total * median)**sign
        rows.append((FOCAL * (stretch * x / z + 0.01) + 31.5 - u, FOCAL * (stretch * y / z - 0.02) + 23.5 - v,
                     math.log(z) - math.log(predicted), sign / total))
    values = np.array(rows)
    return values[:, :2], values[:, 2], values[:, 3]


@pytest.mark.parametrize('kind', ['affine_depth', 'affine_disparity'])
def test_residuals_are_those_of_the_camera(kind):
    bundle, state = _problem(kind)
    pixels, depth, slope = _by_hand(bundle, state)
    _, found_pixels, found_depth = bundle.residuals(state)
    np.testing.assert_allclose(found_pixels, pixels, atol=1e-9)
    np.testing.assert_allclose(found_depth, depth, atol=1e-12)
    np.testing.assert_allclose(bundle.log_depth(state)[1], slope)


def test_points_behind_a_camera_have_finite_residuals():
    bundle, state = _problem(points=((0.0, 0.0, -2.0), (0.3, -0.1, 2.5)))
    pixels, depth, _ = _by_hand(bundle, state)
    np.testing.assert_allclose(bundle.residuals(state)[1], pixels)
    np.testing.assert_allclose(bundle.residuals(state)[2], depth)
    assert all(np.isfinite(part).all() for part in bundle._jacobians(state))


def test_the_cost_is_robust_and_holds_every_prior():
    bundle, state = _problem()
    pixels, depth, _ = _by_hand(bundle, state)
    expected = sum(4 * math.log1p((x * x + y * y) / (0.15 * UNIT)**2 / 4) for x, y in pixels)
    expected += sum(4 * math.log1p((r / 0.1)**2 / 4) for r in depth)
    expected += sum(((shift - 0.3) / 1.6)**2 for shift in SHIFTS)
    expected += (math.log(FOCAL / 50) / 0.3)**2
    expected += (0.05**2 + 0.02**2) / 0.3**2 + (0.01**2 + 0.02**2) / 0.3**2
    assert bundle.cost(state) == pytest.approx(expected)


@pytest.mark.parametrize('kind', ['affine_depth', 'affine_disparity'])
def test_the_pull_takes_the_derivative_at_the_depth_of_the_points(kind, monkeypatch):
    """What the gradient gains is the derivative of the prediction at the points' depth less that at its own."""
    bundle, state = _problem(kind, log_depth=0.4)
    sign, width, slope = bundle.depth.sign, 0.4, _by_hand(bundle, state)[2]
    # errors that are small beside what the depth varies by
    depth, camera = np.array([0.2, -0.15, 0.1, 0.3, 0.0]), np.array([1.0, 1.2, 6.0, 5.0, 1.0])
    monkeypatch.setattr(bundle, 'residuals', lambda state: (camera[:, None] * np.ones(3), np.zeros((5, 2)), depth))
    expected = []
    for frame in range(3):
        of_frame = np.flatnonzero(bundle.tracks.frame == frame)
        weight = 1 / (1 + (depth[of_frame] / width)**2 / 4)
        ratio = np.expm1(np.clip(-sign * depth[of_frame], -1, 1))
        pull = -(weight * ratio * slope[of_frame] * depth[of_frame]).sum() / width**2
        logs = np.log(camera[of_frame])
        mean = (weight * logs).sum() / weight.sum()
        varies = max((weight * (logs - mean)**2).sum() / weight.sum(), 1e-9)
        error = (weight * depth[of_frame]**2).sum() / weight.sum()
        expected.append(pull * min(max(1 - 4 * error / varies, 0), 1))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(bundle.shift_pull(state), expected, rtol=1e-6, atol=1e-12)


def test_the_pull_is_bounded_and_fades_with_the_error(monkeypatch):
    bundle, state = _problem(log_depth=0.4)
    slope = bundle.log_depth(state)[1]
    depth, z = np.array([-1.4, 1.4, -1.4, 1.4, 0.0]), np.array([1.0, 1.0, 1e6, 1e6, 1.0])

    def residuals(_):
        return np.stack((z, z, z), 1), np.zeros((5, 2)), depth

    monkeypatch.setattr(bundle, 'residuals', residuals)
    weight = 1 / (1 + (1.4 / 0.4)**2 / 4)
    fade = 1 - 4 * 1.4**2 / np.log(1e3)**2  # half of the observations lie on either side of the mean depth
    for frame, bound in ((0, math.expm1(1)), (1, math.expm1(-1))):
        of_frame = bundle.tracks.frame == frame
        pull = -(weight * bound * slope * depth)[of_frame].sum() / 0.4**2
        assert bundle.shift_pull(state)[frame] == pytest.approx(fade * pull)
    assert bundle.shift_pull(state)[2] == 0
    z[:] = 1.0  # nothing varies, so nothing is said about the shift
    assert not bundle.shift_pull(state).any()


def test_rows_carry_robust_weights_over_their_widths():
    bundle, state = _problem()
    pixels, depth, slope = _by_hand(bundle, state)
    cameras, shared, _, residual = bundle._jacobians(state)
    width = 0.15 * UNIT
    by_pixel = 1 / np.sqrt(1 + (pixels**2).sum(1) / width**2 / 4) / width
    by_depth = 1 / np.sqrt(1 + (depth / 0.1)**2 / 4) / 0.1
    np.testing.assert_allclose(residual, np.concatenate((pixels * by_pixel[:, None], (depth * by_depth)[:, None]), 1))
    np.testing.assert_allclose(cameras[:, 2, 6], -by_depth)
    np.testing.assert_allclose(cameras[:, 2, 7], -slope * by_depth)
    np.testing.assert_allclose(shared[:, 2], 0)


def test_priors_and_pull_enter_the_equations():
    bundle, state = _problem()
    diagonal, gradient = bundle._prior(state, np.array([5.0, 6.0, 7.0]))
    np.testing.assert_allclose(diagonal[:, 7], 1 / 1.6**2)
    np.testing.assert_allclose(gradient[:, 7], (SHIFTS - 0.3) / 1.6**2 + [5, 6, 7])
    assert not diagonal[:, :7].any() and not gradient[:, :7].any()
    diagonal, gradient = bundle._shared_prior(state)
    np.testing.assert_allclose(diagonal, np.full(5, 1 / 0.3**2))
    np.testing.assert_allclose(gradient, [math.log(FOCAL / 50) / 0.3**2, *LENS / 0.3**2])


def _many_observations(kind='affine_depth', **options):
    """Three frames of which the last one sees five points, too few to be placed."""
    frame = np.concatenate((np.tile([0, 1], 8), np.full(5, 2)))
    point = np.concatenate((np.repeat(np.arange(8), 2), np.arange(5)))
    order = np.lexsort((frame, point))
    tracks = Tracks(frame[order], point[order], np.random.default_rng(0).uniform(5, 40, (21, 2)))
    return Bundle(tracks, FrozenDepth(np.ones((3, *SIZE)), kind), log_focal_prior=0.0, unit=1.0,
                  settings=BundleSettings(**options))


def test_what_is_given_or_too_little_seen_stays():
    free, shared = _many_observations()._free()
    assert not free[0, :7].any() and free[0, 7]  # the gauge: the first frame's pose and scale
    assert free[1].all() and not free[2, :7].any() and free[2, 7]
    assert shared.tolist() == [True, False, False, False, False]
    free, shared = _many_observations(fixed_poses=True, fixed_focal=True, fixed_radial=False)._free()
    assert not free[:, :6].any() and free[:2, 6:].all() and shared.tolist() == [False, True, True, False, False]
    assert not _many_observations('metric')._free()[0][:, 7].any()


def test_shared_points_are_counted_both_ways():
    counts = _many_observations().shared_counts()
    np.testing.assert_array_equal(counts, [[0, 8, 5], [8, 0, 5], [5, 5, 0]])


def _watched(monkeypatch, costs, pull=0.0):
    """A solver whose tried steps have given costs, and the dampings that it asks for."""
    bundle, state = _problem()
    dampings, given = [], iter(costs)

    def apply(state, damping):
        return dataclasses.replace(state, log_focal=next(given))

    monkeypatch.setattr(bundle, 'cost', lambda state: state.log_focal)
    monkeypatch.setattr(bundle, 'shift_pull', lambda state: np.full(3, pull))
    monkeypatch.setattr(bundle, '_linearise', lambda state, pull: None)
    monkeypatch.setattr(bundle, '_solve', lambda system, damping: (dampings.append(damping) or damping, ))
    monkeypatch.setattr(bundle, '_apply', apply)
    return bundle, dataclasses.replace(state, log_focal=100.0), dampings


def test_a_step_is_tried_with_more_damping_until_the_cost_falls(monkeypatch):
    bundle, state, dampings = _watched(monkeypatch, [130, 100, 60, 40, 39.999])
    state, cost = bundle.optimise(state, steps=9)
    assert cost == 39.999  # the last step gained less than a ten-thousandth
    np.testing.assert_allclose(dampings, [1e-4, 5e-4, 25e-4, 7.5e-4, 2.25e-4])


def test_the_state_stays_where_no_step_lowers_the_cost(monkeypatch):
    bundle, state, dampings = _watched(monkeypatch, [200] * 6)
    assert bundle.optimise(state, steps=9)[1] == 100 and len(dampings) == 6


def test_the_damping_never_vanishes(monkeypatch):
    bundle, state, dampings = _watched(monkeypatch, np.geomspace(50, 1e-3, 20))
    bundle.optimise(state, steps=20)
    assert min(dampings) == 1e-9 and len(dampings) == 20


def test_the_fall_counts_the_work_of_the_pull(monkeypatch):
    """A step against the pull must lower the cost by more than the work that it takes."""
    bundle, state, dampings = _watched(monkeypatch, [99, 95], pull=1.0)

    def apply(state, damping):
        shift = state.depth.shift + (1.0 if len(dampings) == 1 else 0.0)
        return dataclasses.replace(state, log_focal=[99, 95][len(dampings) - 1],
                                   depth=dataclasses.replace(state.depth, shift=shift))

    monkeypatch.setattr(bundle, '_apply', apply)
    found, cost = bundle.optimise(state, steps=1)
    assert cost == 95 and len(dampings) == 2
