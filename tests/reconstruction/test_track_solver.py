from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from frozenmm.reconstruction import bundle_builder, camera_search, track_start
from frozenmm.reconstruction.bundle import BundleState
from frozenmm.reconstruction.bundle_builder import BundleBuilder, TrackSettings, drop_outliers
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth
from frozenmm.reconstruction.features import MatchSettings, Tracks, pixel_unit
from frozenmm.reconstruction.generated_room import distort_depth
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.track_solver import find_tracks, solve_tracks, track_marks
from frozenmm.reconstruction.track_start import NothingSharedError

FOCAL = 60.0
CENTRE = np.array([31.5, 23.5])


def _flat_world(points, shifts):
    """A bundle of points (P, 3) that cameras at shifts (F, 3) see exactly, and the true state."""
    points, shifts = np.array(points, float), np.array(shifts, float)
    poses = np.tile(np.eye(4), (len(shifts), 1, 1))
    poses[:, :3, 3] = -shifts
    frame, point = np.tile(np.arange(len(shifts)), len(points)), np.repeat(np.arange(len(points)), len(shifts))
    camera = points[point] - shifts[frame]
    pixels = FOCAL * camera[:, :2] / np.where(camera[:, 2:] == 0, 1, camera[:, 2:]) + CENTRE
    depth = FrozenDepth(np.ones((len(shifts), 48, 64)))
    build = BundleBuilder(depth, TrackSettings(), KnownCamera(focal_px=FOCAL))
    parameters = DepthParameters(np.zeros(len(shifts)), np.zeros(len(shifts)))
    return build(Tracks(frame, point, pixels)), BundleState(poses, np.log(FOCAL), parameters, points)


def test_the_error_of_a_mark_grows_as_the_parallax_falls():
    bundle, state = _flat_world([[0, 0, 2], [0, 0, 20], [0, 0, 4]], [[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]])
    settings = TrackSettings(mark_px=0.3, mark_depth=0.01)
    marks = track_marks(bundle, state, settings)
    angles = np.arctan(0.4 / np.array([2.0, 20.0, 4.0]))[bundle.tracks.point]  # the widest, from the first ray on
    expected = np.sqrt((0.3 * pixel_unit(48, 64) / (FOCAL * angles))**2 + 0.01**2)
    np.testing.assert_allclose(marks.error, expected, rtol=1e-6)
    np.testing.assert_allclose(marks.log_depth, np.log([2, 20, 4])[bundle.tracks.point])
    np.testing.assert_array_equal(marks.frame, bundle.tracks.frame)
    np.testing.assert_array_equal(marks.pixels, bundle.tracks.pixels)


def test_a_point_without_parallax_has_a_finite_error():
    bundle, state = _flat_world([[0, 0, 2]], [[0, 0, 0], [0, 0, 0]])
    error = track_marks(bundle, state, TrackSettings()).error
    np.testing.assert_allclose(error, np.hypot(0.3 * pixel_unit(48, 64) / (FOCAL * 1e-3), 0.01))


def test_observations_behind_the_camera_are_dropped_though_their_pixels_fit():
    # on the optical axis a point behind the camera is projected to where it is observed
    bundle, state = _flat_world([[0, 0, 1], [0.1, 0, 3]], [[0, 0, 0], [0, 0, 0.5], [0, 0, 2]])
    assert np.abs(bundle.residuals(state)[1]).max() < 1e-9
    tracks, left, _ = drop_outliers(bundle, state, 1.0)
    assert list(zip(tracks.point, tracks.frame)) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    np.testing.assert_array_equal(left.points, state.points)


def test_observations_beyond_the_limit_are_dropped_with_points_seen_once():
    bundle, state = _flat_world([[0, 0, 2], [0.1, 0, 3]], [[0, 0, 0], [0.2, 0, 0]])
    bundle.tracks.pixels[0] += [3.0, 4.0]
    tracks, left, _ = drop_outliers(bundle, state, 5.0 + 1e-9)
    assert len(tracks) == 4
    tracks, left, _ = drop_outliers(bundle, state, 4.9)
    assert tracks.point.tolist() == [0, 0] and left.points.tolist() == [[0.1, 0, 3]]
    bundle.tracks.pixels[2] += 100
    with pytest.raises(NothingSharedError):
        drop_outliers(bundle, state, 4.9)


@pytest.mark.parametrize('known, fixed', [
    (KnownCamera(), (False, False)), (KnownCamera(focal_px=70.0), (True, False)),
    (KnownCamera(poses_c2w=np.eye(4)[None]), (False, True))])
def test_what_is_known_of_the_cameras_is_held(known, fixed):
    build = BundleBuilder(FrozenDepth(np.ones((2, 48, 64))), TrackSettings(radial=True), known)
    assert (build.widths.fixed_focal, build.widths.fixed_poses) == fixed
    focal = known.focal_px or bundle_builder.PRIOR_RATIO * 56
    assert np.exp(build.log_focal_prior) == pytest.approx(focal)
    assert build.ratios == ((70 / 56, ) if known.focal_px else track_start.FOCAL_RATIOS)
    tracks = Tracks(np.array([0, 1]), np.array([0, 0]), np.ones((2, 2)))
    assert not build(tracks).settings.fixed_radial and build(tracks).settings.fixed_principal
    assert not build(tracks, free_principal=True).settings.fixed_principal


@pytest.fixture(scope='module')
def solved(exact):
    return _solve(exact)


def _solve(exact, tracks=None, **options):
    settings = options.pop('settings', TrackSettings())
    return solve_tracks(exact.tracks if tracks is None else tracks, FrozenDepth(distort_depth(exact.room.depth)),
                        settings=settings, **options)


def test_exact_tracks_give_exact_cameras(exact, solved):
    poses = solved.state.poses @ np.linalg.inv(solved.state.poses[0])
    true = exact.poses_w2c @ np.linalg.inv(exact.poses_w2c[0])
    np.testing.assert_allclose(poses[:, :3, :3], true[:, :3, :3], atol=2e-3)
    scale = np.linalg.norm(poses[4, :3, 3]) / np.linalg.norm(true[4, :3, 3])
    np.testing.assert_allclose(poses[:, :3, 3], scale * true[:, :3, 3], atol=0.01 * scale)
    assert np.exp(solved.state.log_focal) == pytest.approx(exact.room.focal_px, rel=0.01)
    assert np.median(solved.reprojection) < 0.05 and len(solved.reprojection) == len(solved.tracks)
    assert np.median(np.abs(solved.depth / scale / exact.room.depth - 1)) < 0.02


def test_what_was_found_and_what_is_left_is_counted(exact, solved):
    np.testing.assert_array_equal(solved.found, np.bincount(exact.tracks.frame))
    np.testing.assert_array_equal(solved.inliers, np.bincount(solved.tracks.frame))
    assert (solved.inliers > 0.95 * solved.found).all() and solved.rescued == []


def test_wrong_observations_are_left_out(exact):
    tracks = dataclasses.replace(exact.tracks, pixels=exact.tracks.pixels.copy())
    wrong = np.arange(0, len(tracks), 20)
    tracks.pixels[wrong] += np.random.default_rng(0).uniform(8, 20, (len(wrong), 2))
    solution = _solve(exact, tracks)
    assert solution.reprojection.max() < 2.1 * pixel_unit(120, 160)
    assert 0 <= solution.found.sum() - solution.inliers.sum() - len(wrong) < 0.6 * len(wrong)


def test_steps_are_told_in_their_order(exact):
    told = []
    _solve(exact, report=lambda *step: told.append(step))
    assert told == [('cameras', 1, 3), ('cameras', 2, 3), ('cameras', 3, 3), ('dense depth', 1, 1)]


def test_frames_with_few_tracks_are_handed_to_the_rescue(exact):
    few = exact.tracks.frame != 4
    few[np.flatnonzero(~few)[::len(exact.points) // 60]] = True
    few = few & ((exact.tracks.frame != 4) | (np.cumsum(few & (exact.tracks.frame == 4)) <= 20))
    asked = []

    def rescue(state, weak):
        asked.append(weak)
        return dataclasses.replace(state, log_focal=state.log_focal), weak

    solution = _solve(exact, exact.tracks.subset(few)[0], rescue=rescue)
    assert asked == [[4]] and solution.rescued == [4]
    known = KnownCamera(poses_c2w=exact.room.poses_c2w)
    assert _solve(exact, exact.tracks.subset(few)[0], rescue=rescue, known=known).rescued == []
    assert len(asked) == 1  # given poses need none


def test_given_poses_are_kept(exact):
    solution = _solve(exact, known=KnownCamera(poses_c2w=exact.room.poses_c2w))
    np.testing.assert_allclose(solution.state.poses, exact.poses_w2c, atol=1e-12)
    assert np.median(np.abs(solution.depth / exact.room.depth - 1)) < 0.02


def test_long_clips_take_focal_length_and_shift_from_a_window(exact, monkeypatch):
    """The window holds the frame that sees most; the whole clip then starts with what the window found."""
    monkeypatch.setattr(camera_search, 'ALL_PAIRS_UP_TO', 4)
    monkeypatch.setattr(camera_search, 'START_WINDOW', 3)
    starts, real = [], camera_search.best_start

    def best_start(bundle, **options):
        starts.append((bundle.frames, options['focal_ratios'], options['shifts']))
        return real(bundle, **options)

    monkeypatch.setattr(camera_search, 'best_start', best_start)
    solution = _solve(exact)
    (frames, ratios, shifts), (all_frames, ratio, shift) = starts
    assert frames == 3 and len(ratios) == 1 and len(shifts) == 2  # for one focal length the fundamental matrices vote
    assert all_frames == 5 and ratio[0] * 140 == pytest.approx(exact.room.focal_px, rel=0.05) and len(shift) == 1
    assert np.exp(solution.state.log_focal) == pytest.approx(exact.room.focal_px, rel=0.01)


def test_no_tracks_are_nothing_shared(exact):
    with pytest.raises(NothingSharedError):
        _solve(exact, Tracks(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2))))


def test_tracks_are_found_off_the_masked_pixels(room):
    invalid = np.zeros(room.images.shape[:3], dtype=bool)
    invalid[:, :, :80] = True
    told = []
    tracks, _ = find_tracks(room.images, MatchSettings(), lambda *step: told.append(step), invalid)
    assert len(tracks) > 50 and tracks.pixels[:, 0].min() > 79
    assert told[:5] == [('features', index, 5) for index in range(1, 6)] and told[5:] == [
        ('matching', index, 10) for index in range(1, 11)]
    assert len(find_tracks(room.images, MatchSettings())[0]) > len(tracks)


def test_a_weak_frame_is_moved_by_brightness_only_where_its_tracks_do_not_hold_it(exact):
    """Of frame 4, 20 tracks are left, and of frame 3, 8: one goes with its tracks, the other with the brightness."""
    frame, kept = exact.tracks.frame, np.ones(len(exact.tracks), dtype=bool)
    for weak, count in ((4, 20), (3, 8)):
        kept[np.flatnonzero(frame == weak)[count:]] = False

    def rescue(state, weak):
        moved = dataclasses.replace(state, poses=state.poses.copy())
        moved.poses[weak, :3, 3] += 0.5
        return moved, weak

    found = _solve(exact, exact.tracks.subset(kept)[0], rescue=rescue)
    assert found.rescued == [3]
    plain = _solve(exact, exact.tracks.subset(kept)[0])
    np.testing.assert_array_equal(found.state.poses[4], plain.state.poses[4])
    np.testing.assert_allclose(found.state.poses[3, :3, 3], plain.state.poses[3, :3, 3] + 0.5)
