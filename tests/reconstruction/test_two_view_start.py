"""Cameras from the tracks alone, whatever the frozen depth says."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from frozenmm.reconstruction import camera_search
from frozenmm.reconstruction.bundle import BundleState
from frozenmm.reconstruction.bundle_builder import TrackSettings
from frozenmm.reconstruction.camera_search import spaced
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth
from frozenmm.reconstruction.evidence import held_out, held_out_errors
from frozenmm.reconstruction.features import Tracks, find_bend, unbend
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.lens import NO_LENS, distort, lens_of_bend, straighten
from frozenmm.reconstruction.track_solver import largest_part, solve_tracks
from frozenmm.reconstruction.two_view_start import TwoViewGrowth, focal_votes

SIZE = (120, 160)


def _solve(exact, depth, **options):
    return solve_tracks(options.pop('tracks', exact.tracks), FrozenDepth(depth),
                        settings=options.pop('settings', TrackSettings()), **options)


def _worst_turn_deg(found_w2c, true_w2c):
    apart = (found_w2c @ np.linalg.inv(found_w2c[0])) @ np.linalg.inv(true_w2c @ np.linalg.inv(true_w2c[0]))
    return np.degrees(np.arccos(np.clip((np.trace(apart[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1))).max()


def test_fundamental_matrices_vote_for_the_focal_length(exact):
    votes = focal_votes(exact.tracks, 5, SIZE)
    assert votes[0] * sum(SIZE) / 2 == pytest.approx(exact.room.focal_px, rel=0.1)
    assert focal_votes(Tracks(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2))), 5, SIZE) == []


@pytest.mark.parametrize('kind', ['noise', 'upside down'])
def test_bad_depth_does_not_spoil_the_cameras(exact, kind):
    noise = np.exp(np.random.default_rng(0).normal(0, 1, (5, 8, 8))).repeat(15, 1).repeat(20, 2)
    solution = _solve(exact, noise if kind == 'noise' else exact.room.depth[:, ::-1].max() / exact.room.depth)
    assert _worst_turn_deg(solution.state.poses, exact.poses_w2c) < 1
    assert solution.state.focal_px == pytest.approx(exact.room.focal_px, rel=0.03)
    assert solution.depth_share < 0.6 and np.nanmedian(solution.depth_spread) > 0.15


@pytest.mark.parametrize('lens', [[-0.15, 0.02, 0, 0], [0.12, 0, 0, 0], [0, 0, 0.1, 0.08]])
def test_a_lens_is_believed_where_the_tracks_ask_for_it(exact, lens):
    centre = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
    plane = (exact.tracks.pixels - centre) / exact.room.focal_px
    pixels = distort(plane, np.array(lens)) * exact.room.focal_px + centre
    pixels += np.random.default_rng(0).normal(0, 0.03, pixels.shape)
    solution = _solve(exact, exact.room.depth, tracks=dataclasses.replace(exact.tracks, pixels=pixels))
    assert solution.state.focal_px == pytest.approx(exact.room.focal_px, rel=0.04)
    np.testing.assert_allclose(solution.state.lens, lens, atol=0.06)
    held = _solve(exact, exact.room.depth, tracks=dataclasses.replace(exact.tracks, pixels=pixels),
                  settings=TrackSettings(radial=False, principal=False))
    assert not held.state.lens.any() and held.score < solution.score


def test_other_focal_lengths_are_tried_only_where_the_first_explains_the_tracks_badly(exact, monkeypatch):
    begun, real = [], TwoViewGrowth.run
    monkeypatch.setattr(camera_search, 'MORE_RATIOS', (0.5, 3.0))
    monkeypatch.setattr(TwoViewGrowth, 'run', lambda growth: begun.append(growth.state.lens) or real(growth))
    flat = np.full_like(exact.room.depth, 2.0)  # says nothing, so two views are tried
    assert _solve(exact, flat).state.focal_px == pytest.approx(exact.room.focal_px, rel=0.03)
    assert len(begun) == 1 and not begun[0].any()
    noise = np.random.default_rng(0).normal(0, 1.0, exact.tracks.pixels.shape)
    _solve(exact, flat, tracks=dataclasses.replace(exact.tracks, pixels=exact.tracks.pixels + noise))
    assert len(begun) == 7  # three focal lengths more, without a lens and with one


def test_no_lens_is_believed_where_there_is_none(exact):
    noisy = exact.tracks.pixels + np.random.default_rng(0).normal(0, 0.2, exact.tracks.pixels.shape)
    solution = _solve(exact, exact.room.depth, tracks=dataclasses.replace(exact.tracks, pixels=noisy))
    assert not solution.state.lens.any()


def test_a_prior_of_the_focal_length_is_followed_only_as_far_as_it_is_right(exact):
    wrong = KnownCamera(focal_prior_px=2 * exact.room.focal_px)
    assert _solve(exact, exact.room.depth, known=wrong).state.focal_px == pytest.approx(exact.room.focal_px, rel=0.03)


def test_a_prior_of_the_focal_length_holds_where_tracks_tell_nothing_better(exact):
    few = exact.tracks.subset(exact.tracks.point % 60 == 0)[0]
    noisy = dataclasses.replace(few, pixels=few.pixels + np.random.default_rng(0).normal(0, 1.5, few.pixels.shape))
    prior = 1.6 * exact.room.focal_px
    known = KnownCamera(focal_prior_px=prior, focal_error=1.0)  # as weak as that of EXIF is beside many tracks
    assert _solve(exact, exact.room.depth, tracks=noisy, known=known).state.focal_px == pytest.approx(prior, rel=0.25)


def test_the_error_of_the_focal_length_is_small_where_it_is_well_known(exact):
    assert _solve(exact, exact.room.depth).focal_error < 0.05
    two = exact.tracks.subset(exact.tracks.frame < 2)[0]
    assert _solve(exact, exact.room.depth, tracks=two).focal_error >= 0


def test_held_out_errors_are_those_of_the_cameras(exact):
    held = held_out(exact.tracks)
    left = np.bincount(exact.tracks.point[~held], minlength=exact.tracks.points)
    assert held.sum() > 50 and left.min() == 2
    true = BundleState(exact.poses_w2c, np.log(exact.room.focal_px), DepthParameters(np.zeros(5), np.zeros(5)),
                       np.zeros((0, 3)))
    assert held_out_errors(exact.tracks, held, true, SIZE).max() < 1e-2
    wrong = dataclasses.replace(true, log_focal=true.log_focal + 0.2)
    assert np.median(held_out_errors(exact.tracks, held, wrong, SIZE)) > 0.2


def test_parts_of_a_clip_and_ratios_that_are_far_apart():
    shared = np.zeros((5, 5), int)
    for a, b in ((0, 1), (1, 2), (3, 4)):
        shared[a, b] = shared[b, a] = 30
    assert largest_part(shared).tolist() == [True, True, True, False, False]
    assert spaced([1.0, 1.1, 1.3, 0.8]) == (1.0, 1.3, 0.8)


def test_a_bend_is_found_by_matches_and_is_a_lens():
    random = np.random.default_rng(0)
    points = np.column_stack((random.uniform(-1, 1, (800, 2)) * [1.2, 0.9], random.uniform(1.5, 4, 800)))
    lens, centre, pairs = np.array([-0.3, 0.0, 0, 0]), np.array([159.5, 119.5]), []
    for shift in ([0.3, 0, 0], [0, 0.3, 0.1], [0.2, -0.2, 0], [0, 0, 0.5]):
        seen = [distort(p[:, :2] / p[:, 2:], lens) * 260 + centre + random.normal(0, 0.05, (800, 2))
                for p in (points, points + shift)]
        inside = np.all([(s > 0).all(1) & (s < [319, 239]).all(1) for s in seen], axis=0)
        pairs.append((seen[0][inside], seen[1][inside]))
    assert find_bend(pairs, (240, 320), 0.3, 0) < 0
    straight = [tuple(straighten((s - centre) / 260, lens) * 260 + centre for s in pair) for pair in pairs]
    assert find_bend(straight, (240, 320), 0.3, 0) == 0
    bend = -0.12
    found = lens_of_bend(bend, 260.0, 200.0)
    pixels = random.uniform([20, 20], [300, 220], (50, 2))
    plain = straighten((pixels - centre) / 260, found) * 260
    scale = 1 + bend / 3
    np.testing.assert_allclose(unbend(pixels, bend, (240, 320)) - centre, plain * scale, atol=0.5)
    np.testing.assert_array_equal(lens_of_bend(0.0, 260.0, 200.0), NO_LENS)
