from __future__ import annotations

import numpy as np
import pytest

from frozenmm.demo.rooms.clip import ROOM, RoomSettings, distort_depth, render_room


@pytest.fixture(scope='module')
def walk():
    return render_room(RoomSettings(frames=5, size=(60, 80), frames_per_round=4, samples=1, seed=2))


def test_depth_poses_and_focal_length_describe_the_same_surfaces(room):
    height, width = room.depth.shape[1:]
    v, u = np.mgrid[10:height - 10:7, 10:width - 10:7]
    rays = np.stack(((u - (width - 1) / 2) / room.focal_px, (v - (height - 1) / 2) / room.focal_px,
                     np.ones(u.shape)), -1)
    world = (room.depth[0, v, u][..., None] * rays) @ room.poses_c2w[0, :3, :3].T + room.poses_c2w[0, :3, 3]
    pose = np.linalg.inv(room.poses_c2w[1])
    there = world @ pose[:3, :3].T + pose[:3, 3]
    place = np.rint(room.focal_px * there[..., :2] / there[..., 2:] + [(width - 1) / 2, (height - 1) / 2]).astype(int)
    inside = (place >= 0).all(-1) & (place < [width, height]).all(-1)
    seen = room.depth[1, place[inside][:, 1], place[inside][:, 0]]
    agree = np.abs(seen / there[inside][:, 2] - 1) < 0.03
    assert inside.mean() > 0.5 and agree.mean() > 0.85  # the rest is hidden


def test_a_round_comes_back_and_stays_in_the_room(walk):
    np.testing.assert_allclose(walk.poses_c2w[4], walk.poses_c2w[0], atol=1e-9)
    np.testing.assert_allclose(walk.poses_c2w[0], np.eye(4), atol=1e-12)
    assert walk.depth.min() > 0.2 and walk.depth.max() < np.linalg.norm(ROOM[1] - ROOM[0])
    assert np.linalg.norm(np.diff(walk.poses_c2w[:, :3, 3], axis=0), axis=1).min() > 0.5


def test_the_seed_decides_the_clip(walk):
    settings = RoomSettings(frames=1, size=(60, 80), frames_per_round=4, samples=1, seed=2)
    assert np.array_equal(render_room(settings).depth[0], walk.depth[0])
    assert not np.array_equal(render_room(RoomSettings(frames=1, size=(60, 80), frames_per_round=4, samples=1,
                                                       seed=3)).depth[0], walk.depth[0])


def test_distortion_leaves_errors_like_those_of_a_network(room):
    frozen = distort_depth(room.depth)
    errors = []
    for distorted, truth in zip(frozen, room.depth):
        rows = np.stack((distorted.ravel(), np.ones(truth.size)), 1) / truth.reshape(-1, 1)
        fit = rows @ np.linalg.lstsq(rows, np.ones(truth.size), rcond=None)[0]
        errors.append((np.abs(distorted / truth / np.median(distorted / truth) - 1).mean(), np.abs(fit - 1).mean()))
    by_scale, by_both = np.mean(errors, 0)
    assert 0.05 < by_scale < 0.15 and 0.02 < by_both < 0.06 < by_scale


def test_a_room_without_area_is_refused():
    with pytest.raises(ValueError, match='at least one frame and one pixel'):
        render_room(RoomSettings(frames=0))
