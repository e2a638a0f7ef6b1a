"""The dense stage on a generated room with exact cameras and tracks, whose depth errs smoothly and by noise."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from frozenmm.reconstruction.bundle import Bundle, BundleSettings, BundleState
from frozenmm.reconstruction.dense_stage import DenseSettings, DenseStage
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth, bilinear, hat_matrix
from frozenmm.reconstruction.features import Tracks, pixel_unit

SETTINGS = DenseSettings(min_tracks=12)


def _exact_tracks(room, count):
    """Points of the first frame's surface and where the other frames see them unhidden."""
    frames, height, width = room.depth.shape
    random, centre = np.random.default_rng(0), np.array([(width - 1) / 2, (height - 1) / 2])
    pixels = np.stack((random.integers(2, width - 2, count), random.integers(2, height - 2, count)), 1)
    rays = np.concatenate(((pixels - centre) / room.focal_px, np.ones((count, 1))), 1)
    points = room.depth[0, pixels[:, 1], pixels[:, 0]][:, None] * rays
    frame, point = np.tile(np.arange(frames), count), np.repeat(np.arange(count), frames)
    poses = np.linalg.inv(room.poses_c2w)
    camera = np.einsum('oij,oj->oi', poses[frame, :3, :3], points[point]) + poses[frame, :3, 3]
    seen_at = room.focal_px * camera[:, :2] / camera[:, 2:] + centre
    inside = (camera[:, 2] > 0) & (seen_at >= 0).all(1) & (seen_at <= [width - 1, height - 1]).all(1)
    inside &= np.abs(np.log(bilinear(room.depth, frame, seen_at)) - np.log(np.abs(camera[:, 2]))) < 0.02
    tracks, old, _ = Tracks(frame, point, seen_at).subset(inside)
    return tracks, points[old], poses


@pytest.fixture(scope='module')
def start(room):
    frames, height, width = room.depth.shape
    random = np.random.default_rng(1)
    smooth = hat_matrix(height, 7) @ random.normal(0, 0.06, (frames, 7, 9)) @ hat_matrix(width, 9).T
    frozen = FrozenDepth(room.depth * np.exp(smooth + 0.02 * random.normal(size=room.depth.shape)))
    tracks, points, poses = _exact_tracks(room, 300)
    parameters = DepthParameters(np.zeros(frames), np.zeros(frames))
    state = BundleState(poses, float(np.log(room.focal_px)), parameters, points)
    bundle = Bundle(tracks, frozen, log_focal_prior=state.log_focal, unit=pixel_unit(height, width),
                    settings=BundleSettings())
    return bundle, state


def _error(log_maps, room):
    return np.abs(np.exp(log_maps) / room.depth - 1).mean((1, 2))


def test_depth_comes_nearer_to_the_truth_in_every_frame(room, start):
    bundle, state = start
    before = _error(bundle.depth.log_maps(state.depth), room)
    after = _error(DenseStage(bundle, state, SETTINGS).run(), room)
    assert (after < 0.6 * before).all() and after.mean() < 0.025 < before.mean()


def test_frames_agree_better_where_there_are_no_tracks(room, start):
    bundle, state = start
    few = dataclasses.replace(SETTINGS, track_depth=10.0)  # tracks say next to nothing
    before, after = (np.abs(errors - errors.mean(0)).mean() for errors in (
        maps - np.log(room.depth) for maps in (bundle.depth.log_maps(state.depth),
                                               DenseStage(bundle, state, few).run())))
    assert after < 0.65 * before


def test_invalid_pixels_carry_nothing(room, start):
    bundle, state = start
    wrong = bundle.depth.maps.copy()
    invalid = np.zeros(wrong.shape, dtype=bool)
    invalid[2, :, :60] = True
    wrong[2, :, :60] *= 1.08  # near enough to be taken for the same surface
    tracks, old, _ = bundle.tracks.subset((bundle.tracks.frame != 2) | (bundle.tracks.pixels[:, 0] > 60))
    state = dataclasses.replace(state, points=state.points[old])
    maps = [DenseStage(Bundle(tracks, FrozenDepth(values), log_focal_prior=state.log_focal, unit=bundle.unit,
                              settings=bundle.settings), state, SETTINGS, masked).run()
            for values, masked in ((bundle.depth.maps, invalid), (wrong, invalid), (wrong, None))]
    others = [0, 1, 3, 4]
    assert np.abs(maps[0] - maps[1])[others].max() < 1e-6
    assert np.abs(maps[0] - maps[2])[others].max() > 0.01


def test_a_frame_without_tracks_stays_and_pulls_nothing(room, start):
    bundle, state = start
    tracks, old, _ = bundle.tracks.subset(bundle.tracks.frame != 3)
    state = dataclasses.replace(state, points=state.points[old])
    lost = dataclasses.replace(state, poses=state.poses.copy())
    lost.poses[3] = lost.poses[0]
    bundle = Bundle(tracks, bundle.depth, log_focal_prior=state.log_focal, unit=bundle.unit, settings=bundle.settings)
    there, elsewhere = (DenseStage(bundle, each, SETTINGS).run() for each in (state, lost))
    np.testing.assert_allclose(there[3], bundle.depth.log_maps(state.depth)[3], atol=1e-6)
    np.testing.assert_array_equal(there[[0, 1, 2, 4]], elsewhere[[0, 1, 2, 4]])


def test_partners_of_a_long_clip_share_tracks(room, start, monkeypatch):
    monkeypatch.setattr('frozenmm.reconstruction.dense_stage.ALL_PARTNERS_UP_TO', 0)
    bundle, state = start
    stage = DenseStage(bundle, state, dataclasses.replace(SETTINGS, partners=1))
    shared = bundle.shared_counts()
    for frame, partners in stage.partners.items():
        assert len(partners) <= 1 and all(shared[frame, partner] > 0 for partner in partners)
    assert np.concatenate(list(stage.partners.values())).size > 0
