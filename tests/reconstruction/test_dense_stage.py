"""The dense stage on a generated room with exact cameras and known points; depth errs smoothly and by noise."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from frozenmm.reconstruction.dense_stage import Cameras, DenseSettings, DenseStage, Marks
from frozenmm.reconstruction.depth_model import bilinear, hat_matrix

SETTINGS = DenseSettings()


@pytest.fixture(scope='module')
def marks(room):
    """300 points of the first frame's surface wherever they are seen unhidden."""
    frames, height, width = room.depth.shape
    random, centre = np.random.default_rng(0), np.array([(width - 1) / 2, (height - 1) / 2])
    pixels = np.stack((random.integers(2, width - 2, 300), random.integers(2, height - 2, 300)), 1)
    rays = np.concatenate(((pixels - centre) / room.focal_px, np.ones((300, 1))), 1)
    points = room.depth[0, pixels[:, 1], pixels[:, 0]][:, None] * rays
    frame, poses = np.repeat(np.arange(frames), 300), np.linalg.inv(room.poses_c2w)
    camera = np.einsum('oij,oj->oi', poses[frame, :3, :3], np.tile(points, (frames, 1))) + poses[frame, :3, 3]
    place = room.focal_px * camera[:, :2] / camera[:, 2:] + centre
    seen = (camera[:, 2] > 0) & (place >= 0).all(1) & (place <= [width - 1, height - 1]).all(1)
    frame, place, log_depth = frame[seen], place[seen], np.log(camera[seen, 2])
    open_ = np.abs(np.log(bilinear(room.depth, frame, place)) - log_depth) < 0.02
    return Marks(frame[open_], place[open_], log_depth[open_], np.full(int(open_.sum()), 0.01))


@pytest.fixture(scope='module')
def frozen(room):
    """Logarithmic depth with errors."""
    frames, height, width = room.depth.shape
    random = np.random.default_rng(1)
    smooth = hat_matrix(height, 7) @ random.normal(0, 0.06, (frames, 7, 9)) @ hat_matrix(width, 9).T
    return np.log(room.depth) + smooth + 0.02 * random.normal(size=room.depth.shape)


def _part(marks, kept):
    return Marks(*(getattr(marks, each.name)[kept] for each in dataclasses.fields(Marks)))


def _stage(room, log_maps, marks, settings=SETTINGS, poses_c2w=None, **options):
    poses = np.linalg.inv(room.poses_c2w if poses_c2w is None else poses_c2w)
    return DenseStage(log_maps, Cameras(poses, room.focal_px), marks, settings=settings, **options)


def _error(log_maps, room):
    return np.abs(np.exp(log_maps) / room.depth - 1).mean((1, 2))


def test_depth_comes_nearer_to_the_truth_in_every_frame(room, frozen, marks):
    before, after = _error(frozen, room), _error(_stage(room, frozen, marks).run(), room)
    assert (after < 0.6 * before).all() and after.mean() < 0.025 < before.mean()


def test_frames_agree_where_nothing_else_is_known(room, frozen, marks):
    unsure = dataclasses.replace(marks, error=np.full(len(marks.error), 10.0))
    before, after = (np.abs(errors - errors.mean(0)).mean() for errors in (
        maps - np.log(room.depth) for maps in (frozen, _stage(room, frozen, unsure).run())))
    assert after < 0.65 * before


def test_a_false_point_bends_nothing(room, frozen, marks):
    false = dataclasses.replace(marks, log_depth=marks.log_depth.copy())
    false.log_depth[::10] += 0.5
    right, bent = (_error(_stage(room, frozen, each).run(), room).mean() for each in (marks, false))
    assert bent < 1.1 * right


def test_a_poor_prediction_follows_the_known_points(room, marks):
    flat = np.full(room.depth.shape, np.log(room.depth).mean())
    places = np.rint(marks.pixels).astype(int)
    before, after = (np.abs(maps[marks.frame, places[:, 1], places[:, 0]] - marks.log_depth) for maps in (
        flat, _stage(room, flat.copy(), marks).run()))
    assert np.median(before) > 0.15 and np.median(after) < 0.25 * np.median(before)


def test_invalid_pixels_carry_nothing(room, frozen, marks):
    wrong, invalid = frozen.copy(), np.zeros(frozen.shape, dtype=bool)
    invalid[2, :, :60] = True
    wrong[2, :, :60] += 0.08  # near enough to be taken for the same surface
    held = _part(marks, (marks.frame != 2) | (marks.pixels[:, 0] > 60))
    maps = [_stage(room, values, held, invalid=masked).run()[[0, 1, 3, 4]]
            for values, masked in ((frozen, invalid), (wrong, invalid), (wrong, None))]
    assert np.abs(maps[0] - maps[1]).max() < 1e-6
    assert np.abs(maps[0] - maps[2]).max() > 0.01


def test_a_frame_without_known_points_stays_and_pulls_nothing(room, frozen, marks):
    held, lost = _part(marks, marks.frame != 3), room.poses_c2w.copy()
    lost[3] = lost[0]
    there, elsewhere = (_stage(room, frozen, held, poses_c2w=poses).run() for poses in (room.poses_c2w, lost))
    np.testing.assert_allclose(there[3], frozen[3], atol=1e-6)
    np.testing.assert_array_equal(there[[0, 1, 2, 4]], elsewhere[[0, 1, 2, 4]])


def test_a_follower_is_bent_and_pulls_nothing(room, frozen, marks):
    held = _part(marks, marks.frame != 3)
    alone, following = (_stage(room, frozen, held, followers=frames).run() for frames in ((), (3, )))
    assert _error(following, room)[3] < 0.7 * _error(alone, room)[3]
    np.testing.assert_array_equal(alone[[0, 1, 2, 4]], following[[0, 1, 2, 4]])


def test_partners_of_a_long_clip_are_linked(room, frozen, marks, monkeypatch):
    monkeypatch.setattr('frozenmm.reconstruction.dense_stage.ALL_PARTNERS_UP_TO', 0)
    links = np.zeros((5, 5))
    links[0, 1] = links[1, 0] = links[2, 4] = 1
    stage = _stage(room, frozen, marks, links=links)
    assert {frame: partners.tolist() for frame, partners in stage.partners.items()} == {
        0: [1], 1: [0], 2: [4], 3: [], 4: []}


def test_an_image_of_another_size_has_nodes_at_the_same_distance(room, frozen, marks):
    stage = _stage(room, frozen, marks)
    large = _stage(room, frozen.repeat(2, 1).repeat(2, 2), marks)
    assert stage.shape == large.shape == (10, 12)
