from __future__ import annotations

import numpy as np
import pytest

from frozenmm.errors import UserError
from frozenmm.reconstruction.bundle import Bundle, BundleSettings
from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.features import Tracks, pixel_unit
from frozenmm.reconstruction.track_start import (
    MIN_KNOWN,
    NothingSharedError,
    best_start,
    grow,
    posed_start,
    triangulate,
)


def _frozen(exact, shift=0.3):
    """Predictions that are the true depth once `shift` medians are added."""
    depth = exact.room.depth
    return FrozenDepth(depth - shift / (1 + shift) * np.median(depth, axis=(1, 2), keepdims=True))


def _bundle(exact, tracks=None, depth=None, **options):
    depth = depth or _frozen(exact)
    return Bundle(exact.tracks if tracks is None else tracks, depth, log_focal_prior=np.log(exact.room.focal_px),
                  unit=pixel_unit(*depth.size), settings=BundleSettings(**options))


def _only(tracks, frames):
    """Tracks of some frames; the others see nothing."""
    return tracks.subset(np.isin(tracks.frame, frames))[0]


def _from_root(poses_w2c, root):
    """Poses relative to a frame, and positions over the mean step, which the scale of the world leaves alone."""
    poses = poses_w2c @ np.linalg.inv(poses_w2c[root])
    centres = np.linalg.inv(poses)[:, :3, 3]
    return poses[:, :3, :3], centres / np.linalg.norm(np.diff(centres, axis=0), axis=1).mean()


def test_rays_meet_in_their_points(exact):
    height, width = exact.room.depth.shape[1:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    found = triangulate(exact.tracks, exact.poses_w2c, (exact.tracks.pixels - centre) / exact.room.focal_px)
    np.testing.assert_allclose(found, exact.points, atol=1e-4)


def test_cameras_grow_from_the_frame_that_sees_most(exact):
    state, inliers = grow(exact.tracks, _frozen(exact), focal_px=exact.room.focal_px, shift=0.3,
                          unit=pixel_unit(*exact.room.depth.shape[1:]))
    counts = np.bincount(exact.tracks.frame)
    root = int(counts.argmax())
    np.testing.assert_array_equal(state.poses[root], np.eye(4))
    assert inliers[root] == counts[root] and (inliers >= MIN_KNOWN).all()
    for found, true in zip(_from_root(state.poses, root), _from_root(exact.poses_w2c, root)):
        np.testing.assert_allclose(found, true, atol=0.02)
    # the root's median depth is the unit of the world
    z = (state.points @ state.poses[root, 2, :3] + state.poses[root, 2, 3])[exact.tracks.point]
    assert np.median(z[exact.tracks.frame == root]) == pytest.approx(1, abs=0.02)


def test_frames_that_see_nothing_stand_where_the_nearest_frame_stands(exact):
    state, inliers = grow(_only(exact.tracks, [0, 1]), _frozen(exact), focal_px=exact.room.focal_px, shift=0.3,
                          unit=pixel_unit(*exact.room.depth.shape[1:]))
    assert (inliers > 0).tolist() == [True, True, False, False, False]
    for frame in (2, 3, 4):
        np.testing.assert_array_equal(state.poses[frame], state.poses[1])
        assert state.depth.log_scale[frame] == state.depth.log_scale[1]


def test_a_frame_with_too_few_known_points_does_not_join(exact):
    tracks = exact.tracks
    of_last = np.flatnonzero(tracks.frame == 4)
    for kept, joins in ((MIN_KNOWN - 1, False), (3 * MIN_KNOWN, True)):
        few = np.ones(len(tracks), dtype=bool)
        few[of_last] = False
        few[of_last[::len(of_last) // kept][:kept]] = True
        part = tracks.subset(few)[0]
        inliers = grow(part, _frozen(exact), focal_px=exact.room.focal_px, shift=0.3,
                       unit=pixel_unit(*exact.room.depth.shape[1:]))[1]
        assert (inliers[4] > 0) == joins


def test_metric_depth_starts_without_a_shift(exact):
    state, _ = grow(exact.tracks, FrozenDepth(exact.room.depth, 'metric'), focal_px=exact.room.focal_px, shift=0.5,
                    unit=pixel_unit(*exact.room.depth.shape[1:]))
    assert not state.depth.shift.any()


def test_the_best_of_several_starts_has_the_true_focal_length(exact):
    side = sum(exact.room.depth.shape[1:]) / 2
    ratio = exact.room.focal_px / side
    state, inliers = best_start(_bundle(exact, log_focal=10.0), mean_side=side, focal_ratios=(0.6 * ratio, ratio),
                                shifts=(0.3, 3.0), steps=2)
    assert np.exp(state.log_focal) == pytest.approx(exact.room.focal_px, rel=0.01)
    assert np.abs(state.depth.shift - 0.3).max() < 0.1 and (inliers > 0).all()


def test_a_start_that_loses_a_frame_does_not_win_by_its_lower_cost(exact, monkeypatch):
    counts = {1.0: 5, 2.0: 4}
    bundle = _bundle(exact)

    def fake_grow(tracks, depth, *, focal_px, **options):
        state = grow(tracks, depth, focal_px=exact.room.focal_px, **options)[0]
        state.log_focal = float(np.log(focal_px))
        return state, (np.arange(5) < counts[focal_px]).astype(int)

    monkeypatch.setattr('frozenmm.reconstruction.track_start.grow', fake_grow)
    monkeypatch.setattr(bundle, 'optimise', lambda state, steps: (state, 1 / np.exp(state.log_focal)))
    state, inliers = best_start(bundle, mean_side=1.0, focal_ratios=(1.0, 2.0), shifts=(0.3, ), steps=1)
    assert inliers.sum() == 5 and np.exp(state.log_focal) == pytest.approx(1.0)


def test_frames_that_share_nothing_have_no_start(exact):
    tracks = Tracks(np.array([0, 1]), np.array([0, 0]), np.array([[40.0, 40.0], [41.0, 40.0]]))
    with pytest.raises(NothingSharedError, match='no two frames share enough feature tracks') as error:
        best_start(_bundle(exact, tracks), mean_side=140.0, focal_ratios=(1.0, ), shifts=(0.3, ), steps=1)
    assert isinstance(error.value, UserError)


@pytest.mark.parametrize('kind', ['affine_depth', 'metric'])
def test_given_poses_fix_the_scale_of_the_depth(exact, kind):
    depth = _frozen(exact) if kind == 'affine_depth' else FrozenDepth(2.5 * exact.room.depth, 'metric')
    side = sum(exact.room.depth.shape[1:]) / 2
    bundle = _bundle(exact, depth=depth, fixed_poses=True)
    state = posed_start(bundle, exact.poses_w2c, mean_side=side, focal_ratios=(exact.room.focal_px / side, ),
                        shifts=(0.3, 0.7), steps=2)
    np.testing.assert_array_equal(state.poses, exact.poses_w2c)
    maps = np.exp(depth.log_maps(state.depth))
    assert np.median(np.abs(maps / exact.room.depth - 1)) < 0.01
    if kind == 'metric':
        assert np.exp(state.depth.log_scale) == pytest.approx(0.4, rel=0.01) and not state.depth.shift.any()


def test_a_frame_without_points_before_it_gets_the_usual_scale(exact):
    side = sum(exact.room.depth.shape[1:]) / 2
    bundle = _bundle(exact, _only(exact.tracks, [0, 1, 2, 3]), fixed_poses=True)
    state = posed_start(bundle, exact.poses_w2c, mean_side=side, focal_ratios=(exact.room.focal_px / side, ),
                        shifts=(0.3, ), steps=0)
    assert state.depth.log_scale[4] == pytest.approx(np.median(state.depth.log_scale[:4]))


def test_poses_behind_which_everything_lies_have_no_start(exact):
    turned = np.diag([-1.0, 1.0, -1.0, 1.0]) @ exact.poses_w2c  # half a turn about the vertical axis
    mirrored = Tracks(exact.tracks.frame, exact.tracks.point, exact.tracks.pixels * [1, -1] + [0, 119])
    with pytest.raises(NothingSharedError):
        posed_start(_bundle(exact, mirrored, fixed_poses=True), turned, mean_side=140.0,
                    focal_ratios=(exact.room.focal_px / 140, ), shifts=(0.3, ), steps=0)
