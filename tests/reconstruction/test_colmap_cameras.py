"""COLMAP's cameras: as they are, as a second opinion, and not at all."""
from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from frozenmm.errors import MissingPackage, UserError
from frozenmm.reconstruction.align import AlignSettings, align
from frozenmm.reconstruction.bundle_builder import TrackSettings
from frozenmm.reconstruction.colmap_cameras import ColmapCameras, colmap_cameras
from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.features import Tracks
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.lens import NO_LENS
from frozenmm.reconstruction.outputs import point_cloud, write_colmap
from frozenmm.reconstruction.track_solver import solve_tracks, turns_apart_deg
from frozenmm.reconstruction.track_start import NothingSharedError


@pytest.fixture(scope='module')
def given(exact) -> ColmapCameras:
    """The true cameras of the room, as if COLMAP had found them."""
    return ColmapCameras(exact.poses_w2c, np.ones(5, dtype=bool), exact.room.focal_px, NO_LENS.copy(), exact.tracks)


@pytest.fixture(scope='module')
def walk(rooms):
    """Six frames of a room that COLMAP can place."""
    return rooms.render_room(rooms.RoomSettings(frames=6, size=(240, 320), path_m=1.2, samples=2, seed=1))


def _flat(exact) -> FrozenDepth:
    """Depth that says nothing."""
    return FrozenDepth(np.ones_like(exact.room.depth))


def test_given_cameras_stay_as_they_are(exact, given):
    found = solve_tracks(exact.tracks, _flat(exact), settings=TrackSettings(), colmap=given)
    np.testing.assert_allclose(found.state.poses, exact.poses_w2c, atol=1e-12)
    assert found.state.focal_px == pytest.approx(given.focal_px) and 0 < found.focal_error < 0.05
    assert found.turn_deg.max() > 0 and np.median(found.reprojection) < 1e-2


def test_a_frame_that_was_left_out_is_placed_by_the_points_of_the_others(exact, given):
    placed, poses = given.placed.copy(), given.poses.copy()
    placed[4], poses[4] = False, np.eye(4)
    found = solve_tracks(exact.tracks, _flat(exact), settings=TrackSettings(),
                         colmap=dataclasses.replace(given, poses=poses, placed=placed))
    assert turns_apart_deg(found.state.poses, exact.poses_w2c).max() < 0.1


def test_cameras_without_a_common_point_are_nothing(exact, given):
    one = dataclasses.replace(given, placed=np.arange(5) < 1)
    with pytest.raises(NothingSharedError):
        solve_tracks(exact.tracks, _flat(exact), settings=TrackSettings(), colmap=one)


def _noisy(exact) -> Tracks:
    """Tracks that no cameras explain well."""
    noise = np.random.default_rng(0).normal(0, 1.0, exact.tracks.pixels.shape)
    return dataclasses.replace(exact.tracks, pixels=exact.tracks.pixels + noise)


@pytest.mark.parametrize('doubt', [False, True])
def test_a_second_opinion_is_asked_for_only_where_there_is_doubt(exact, given, doubt):
    asked = []

    def second() -> ColmapCameras:
        asked.append(True)
        return given

    found = solve_tracks(_noisy(exact) if doubt else exact.tracks, _flat(exact), settings=TrackSettings(),
                         colmap=second)
    assert bool(asked) == doubt
    assert turns_apart_deg(found.state.poses, exact.poses_w2c).max() < (2 if doubt else 0.2)


def test_the_better_of_both_is_taken(exact, given):
    plain = solve_tracks(_noisy(exact), _flat(exact), settings=TrackSettings())
    wrong = dataclasses.replace(given, poses=np.roll(given.poses, 1, axis=0), focal_px=2 * given.focal_px)
    found = solve_tracks(_noisy(exact), _flat(exact), settings=TrackSettings(), colmap=lambda: wrong)
    assert found.score >= plain.score
    assert turns_apart_deg(found.state.poses, plain.state.poses).max() < 1


def test_a_clip_is_placed_by_colmap(walk):
    pytest.importorskip('pycolmap')
    found = colmap_cameras(walk.images, known=KnownCamera())
    assert found is not None and found.placed.all()
    assert turns_apart_deg(found.poses, np.linalg.inv(walk.poses_c2w)).max() < 1
    assert found.focal_px == pytest.approx(walk.focal_px, rel=0.05)
    assert np.diff(found.tracks.point).min() == 0 and found.tracks.frame.max() == 5
    result = align(walk.images, walk.depth, settings=AlignSettings(mode='colmap'))
    assert turns_apart_deg(np.linalg.inv(result.poses_c2w), found.poses).max() < 1e-3
    scale = np.median(result.depth / walk.depth)
    assert np.median(np.abs(result.depth / scale / walk.depth - 1)) < 0.03


def test_masked_pixels_have_no_features_and_a_given_focal_length_stays(walk):
    pytest.importorskip('pycolmap')
    invalid = np.zeros(walk.depth.shape, dtype=bool)
    invalid[:, :, :60] = True
    found = colmap_cameras(walk.images, known=KnownCamera(focal_px=walk.focal_px), invalid=invalid, straight=True)
    assert found is not None and found.tracks.pixels[:, 0].min() > 59
    assert found.focal_px == pytest.approx(walk.focal_px) and not found.lens.any()


def test_what_cannot_be_is_said(exact, monkeypatch):
    images, depth = exact.room.images, exact.room.depth
    with monkeypatch.context() as without:
        without.setitem(sys.modules, 'pycolmap', None)
        with pytest.raises(MissingPackage, match='mode colmap needs the package .pycolmap.*pip install pycolmap'):
            align(images, depth, settings=AlignSettings(mode='colmap'))
    pytest.importorskip('pycolmap')
    with pytest.raises(UserError, match='give poses_c2w to mode tracks or direct'):
        align(images, depth, settings=AlignSettings(mode='colmap'), known=KnownCamera(poses_c2w=exact.room.poses_c2w))
    with pytest.raises(UserError, match='COLMAP joins no three of the 3 frames'):
        align(np.zeros((3, 64, 64, 3), np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None] * 9,
              np.ones((3, 64, 64)), settings=AlignSettings(mode='colmap'))


def test_colmap_reads_what_is_written(exact, tmp_path):
    pycolmap = pytest.importorskip('pycolmap')
    room = exact.room
    cloud = point_cloud(room.images, room.depth, room.poses_c2w, room.focal_px, stride=16)
    write_colmap(tmp_path / 'colmap', [f'{i}.png' for i in range(5)], room.poses_c2w, room.focal_px,
                 room.depth.shape[1:], cloud)
    read = pycolmap.Reconstruction(tmp_path / 'colmap')
    assert read.num_images() == 5 and read.num_points3D() == len(cloud.vertices)
    camera = next(iter(read.cameras.values()))
    assert camera.model.name == 'PINHOLE' and camera.params[:2] == pytest.approx([room.focal_px] * 2)
    for image in read.images.values():
        pose = np.vstack((image.cam_from_world().matrix(), [0, 0, 0, 1]))
        np.testing.assert_allclose(pose, np.linalg.inv(room.poses_c2w)[int(image.name.partition('.')[0])], atol=1e-6)

