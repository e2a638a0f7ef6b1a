from __future__ import annotations

import cv2
import numpy as np
import pytest

from frozenmm.datasets import SampleDepthPoints
from frozenmm.demo.generated_rooms import GeneratedRooms
from frozenmm.demo.rooms import RoomImages, paint_room, write_rooms
from frozenmm.demo.rooms.cast import Solids, camera_rays, cast, lit
from frozenmm.demo.rooms.furnish import furnish
from frozenmm.demo.rooms.paint import PHOTOGRAPHS
from frozenmm.registry import DATASETS, TRANSFORMS

SMALL = dict(train=3, val=2, size=(64, 96))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_rooms(tmp_path_factory.mktemp('rooms'), RoomImages(**SMALL))


def solids(*boxes):
    centre, half, turn = zip(*boxes)
    return Solids(np.array(centre, np.float32), np.array(half, np.float32), np.array(turn, np.float32))


def test_rays_hit_walls_and_boxes_where_geometry_says():
    """A room of 4 m with a box of 1 m that is turned by 45 degrees, 2 m before the camera."""
    scene = solids(((0, 0, 0), (2, 2, 4), 0.0), ((0, 0, 1.0), (0.5, 0.5, 0.5), np.pi / 4))
    pose = np.eye(4)
    pose[2, 3] = -1.0
    hits = cast(scene, pose, (49, 65), 40.0, 1)
    assert hits.distance[24, 32] == pytest.approx(2 - 0.5 * np.sqrt(2), abs=1e-5)  # the edge of the box
    u = (32 + 8 - 32) / 40  # a ray to the right meets x + (z - 2) ... on the turned face: z = 2 - 0.7071 + x
    assert hits.distance[24, 40] == pytest.approx((2 - 0.5 * np.sqrt(2)) / (1 - u), abs=1e-4)
    assert hits.solid[24, 32] == 1 and hits.solid[24, 64] == 0
    assert hits.distance[24, 64] == pytest.approx(2 / (32 / 40), abs=1e-4)  # the wall x = 2
    assert hits.distance[2, 32] == pytest.approx(2 / (22 / 40), abs=1e-4)  # the ceiling y = -2


def test_the_place_of_a_hit_is_its_depth_along_the_ray():
    scene = furnish(np.random.default_rng(3))
    size, focal = (24, 32), 25.0
    hits = cast(scene.solids, scene.pose_c2w, size, focal, 1)
    rays = np.einsum('ij,jhw->ihw', scene.pose_c2w[:3, :3], camera_rays(size, focal, 1))
    for row, column in ((0, 0), (12, 16), (23, 31)):
        index = hits.solid[row, column]
        place = scene.solids.rotation(index).T @ hits.place[:, row, column] + scene.solids.centre[index]
        wanted = scene.pose_c2w[:3, 3] + hits.distance[row, column] * rays[:, row, column]
        np.testing.assert_allclose(place, wanted, atol=1e-4)
        assert (np.abs(hits.place[:, row, column]) <= scene.solids.half[index] + 1e-4).all()


def test_windows_of_boxes_do_not_change_what_is_seen(monkeypatch):
    from frozenmm.demo.rooms import cast as module
    scenes = [furnish(np.random.default_rng(seed)) for seed in range(6)]
    found = [cast(s.solids, s.pose_c2w, (24, 32), 25.0, 2).distance for s in scenes]
    monkeypatch.setattr(module, '_window', lambda *args: (slice(None), slice(None)))
    for scene, distance in zip(scenes, found):
        np.testing.assert_allclose(distance, cast(scene.solids, scene.pose_c2w, (24, 32), 25.0, 2).distance)


def test_a_box_throws_a_shadow():
    scene = solids(((0, 0, 0), (2, 2, 2), 0.0), ((0, 0, 0), (0.5, 0.1, 0.5), 0.3))
    points = np.array([[0, 2, 0], [1.9, 2, 0], [0, -0.1, 0], [0, 0.1, 0]], np.float32).T
    assert lit(scene, points, np.array([0, -1.5, 0.0])).tolist() == [False, True, True, False]


def test_cameras_stand_in_the_room_and_see_it():
    for seed in range(20):
        scene = furnish(np.random.default_rng(seed))
        room = scene.solids.half[0] + 1e-6
        assert (np.abs(scene.pose_c2w[:3, 3] - scene.solids.centre[0]) < room).all()
        np.testing.assert_allclose(scene.pose_c2w[:3, :3] @ scene.pose_c2w[:3, :3].T, np.eye(3), atol=1e-12)
        assert scene.pose_c2w[1, 1] > 0.4  # upright: y points down in the world and in the camera
        distance = cast(scene.solids, scene.pose_c2w, (12, 16), 12.0, 1).distance
        assert np.isfinite(distance).all() and distance.min() > 0.05


def test_pictures_have_texture_light_and_exact_depth():
    picture = paint_room('train', (96, 128), np.random.default_rng(5))
    assert picture.image.shape == (96, 128, 3) and picture.image.dtype == np.uint8
    assert picture.image.std() > 10 and 10 < picture.image.mean() < 245
    assert picture.depth.shape == (96, 128) and picture.depth.min() > 0
    again = paint_room('train', (96, 128), np.random.default_rng(5))
    np.testing.assert_array_equal(picture.image, again.image)


def test_test_rooms_show_other_photographs():
    assert not set(PHOTOGRAPHS['train']) & set(PHOTOGRAPHS['val'])


def test_files_are_complete_and_a_second_call_changes_nothing(folder):
    images = sorted((folder / 'images').rglob('*.jpg'))
    assert [file.name for file in images] == ['train_00000.jpg', 'train_00001.jpg', 'train_00002.jpg', 'val_00000.jpg',
                                              'val_00001.jpg']
    depth = cv2.imread(str(folder / 'depth/train/train_00002.png'), -1)
    assert depth.dtype == np.uint16 and depth.shape == (64, 96) and 200 < np.median(depth) < 9000
    before = {file: file.stat().st_mtime_ns for file in folder.rglob('*') if file.is_file()}
    write_rooms(folder, RoomImages(**SMALL))
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob('*') if file.is_file()}


def test_an_interrupted_run_gives_the_same_files(folder, tmp_path):
    first = write_rooms(tmp_path / 'r', RoomImages(**SMALL))
    (first / 'depth/val/val_00001.png').unlink()
    manifest = first / 'rooms.json'
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    write_rooms(first, RoomImages(**SMALL))
    for file in ('depth/val/val_00001.png', 'images/val/val_00001.jpg', 'images/train/train_00000.jpg'):
        assert (first / file).read_bytes() == (folder / file).read_bytes()


def test_other_settings_and_bad_ones_are_explained(folder):
    with pytest.raises(ValueError, match='holds rooms made with'):
        write_rooms(folder, RoomImages(**{**SMALL, 'seed': 1}))
    with pytest.raises(ValueError, match='train and val must be at least 1'):
        RoomImages(train=0)
    with pytest.raises(ValueError, match='size must be a height and a width of at least 32 pixels'):
        RoomImages(size=(16, 96))
    with pytest.raises(ValueError, match='split must be one of'):
        GeneratedRooms(str(folder), 'test', settings=SMALL)


def test_the_data_set_gives_images_with_depth_in_metres(folder):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3),
                dict(type='frozenmm.SampleDepthPoints', count=30),
                dict(type='PackSegInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'depth_points'))]
    data = DATASETS.build(dict(type='frozenmm.GeneratedRooms', data_root=str(folder), split='train',
                               settings={**SMALL, 'size': [64, 96]}, pipeline=pipeline, _scope_='mmseg'))
    assert len(data) == 3
    sample = data[1]['data_samples']
    depth = sample.gt_depth_map.data[0].numpy()
    np.testing.assert_allclose(depth, cv2.imread(str(folder / 'depth/train/train_00001.png'), -1) / 1000, rtol=1e-5)
    points = sample.metainfo['depth_points']
    assert points.shape == (30, 3)
    np.testing.assert_allclose(points[:, 2], depth[points[:, 0].astype(int), points[:, 1].astype(int)])
    np.testing.assert_array_equal(points, data[1]['data_samples'].metainfo['depth_points'])  # the same every time


def test_points_are_drawn_where_depth_is_known():
    depth = np.zeros((10, 12), np.float32)
    depth[3, 4], depth[5, 6] = 2, 3
    transform = TRANSFORMS.build(dict(type='frozenmm.SampleDepthPoints', count=50))
    found = transform(dict(gt_depth_map=depth, img_path='a.jpg'))['depth_points']
    assert sorted(found.tolist()) == [[3, 4, 2], [5, 6, 3]]
    with pytest.raises(ValueError, match='count must be at least 2'):
        SampleDepthPoints(count=1)
