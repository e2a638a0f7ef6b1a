from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from small_results import write_room

from frozenmm.errors import MissingPackage
from frozenmm.reconstruction.results_folder import open_results
from frozenmm.reconstruction.viewer import PICTURE_WIDTH, Viewer


@pytest.fixture(scope='module')
def out(room, tmp_path_factory):
    return write_room(tmp_path_factory.mktemp('out'), room)


@pytest.fixture(scope='module')
def viewer(out):
    pytest.importorskip('viser', reason='the viewer needs requirements/viewer.txt')
    viewer = Viewer(open_results(out))
    yield viewer
    viewer.close()


def test_a_folder_of_results_is_read_as_it_was_written(out, room):
    results = open_results(out)
    assert len(results) == 5 and results.size == (120, 160) and results.names == ['0', '1', '2', '3', '4']
    np.testing.assert_allclose(results.poses_c2w, room.poses_c2w, atol=1e-6)
    assert results.focal_px == pytest.approx(room.focal_px)
    np.testing.assert_array_equal(results.image(3), room.images[3])
    np.testing.assert_array_equal(results.depth(3), room.depth[3])
    cloud = results.frame_points(3, stride=4)
    seen = (cloud.vertices - room.poses_c2w[3, :3, 3]) @ room.poses_c2w[3, :3, :3]
    np.testing.assert_allclose(seen[:, 2], room.depth[3, ::4, ::4].ravel(), rtol=1e-4)
    np.testing.assert_array_equal(cloud.colours, room.images[3, ::4, ::4].reshape(-1, 3))


def test_the_scene_holds_what_was_reconstructed(viewer, room):
    results = viewer.results
    trimesh = pytest.importorskip('trimesh')
    content = trimesh.load(trimesh.util.wrap_as_stream(viewer.surfaces['mesh'].glb_data), file_type='glb', force='mesh',
                           process=False)
    assert len(content.vertices) == len(results.mesh().vertices) and len(content.faces) == len(results.mesh().faces)
    np.testing.assert_array_equal(viewer.surfaces['points'].points, results.points().vertices)
    assert len(viewer.cameras) == 5
    for camera, pose, image in zip(viewer.cameras, room.poses_c2w, room.images):
        np.testing.assert_allclose(camera.position, pose[:3, 3], atol=1e-6)
        w, x, y, z = camera.wxyz
        forward = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]
        np.testing.assert_allclose(forward, pose[:3, 2], atol=1e-6)
        assert camera.aspect == pytest.approx(160 / 120)
        assert 60 / np.tan(camera.fov / 2) == pytest.approx(room.focal_px)
        np.testing.assert_array_equal(camera.image, image)


def test_mesh_and_points_are_shown_in_turn(viewer):
    for surface in 'points', 'nothing', 'mesh':
        viewer.surface.value = surface
        assert {name: handle.visible for name, handle in viewer.surfaces.items()} == {
            'points': surface == 'points', 'mesh': surface == 'mesh'}


def test_a_chosen_frame_is_marked_and_its_picture_and_depth_shown(viewer, room):
    colours = {tuple(camera.color) for camera in viewer.cameras}
    viewer.depth.value = True
    viewer.slider.value = 3
    assert viewer.frame == 3 and len(colours) == 2
    marked = [camera for camera in viewer.cameras if tuple(camera.color) != tuple(viewer.cameras[0].color)]
    assert marked == [viewer.cameras[3]]
    np.testing.assert_array_equal(viewer.picture.image, room.images[3])
    assert len(viewer.depth_points.points) == 60 * 80
    viewer.depth.value = False
    assert viewer.depth_points is None
    viewer.slider.value = 0


def test_a_camera_looked_through_does_not_stand_in_the_way(viewer):
    size = viewer.cameras[0].scale
    viewer.enlarged.value = 0.2
    assert viewer.cameras[0].scale == pytest.approx(size / 5)
    viewer.along.value = True
    assert not viewer.cameras[0].visible and viewer.cameras[4].visible
    viewer.along.value = False
    assert all(camera.visible for camera in viewer.cameras)
    viewer.shown.value = False
    assert not any(camera.visible for camera in viewer.cameras)
    viewer.shown.value, viewer.enlarged.value = True, 1.0


def test_large_pictures_are_sent_small(room, tmp_path):
    pytest.importorskip('viser', reason='the viewer needs requirements/viewer.txt')
    from frozenmm.reconstruction.viewer import _shrunk
    image = np.repeat(np.repeat(room.images[0], 5, 0), 5, 1)
    np.testing.assert_array_equal(_shrunk(image, 5), room.images[0])
    assert image.shape[1] // PICTURE_WIDTH == 4


def test_the_scene_is_saved_as_one_page(viewer, tmp_path):
    page = viewer.save(tmp_path / 'scene.html').read_text()
    assert page.lstrip().lower().startswith('<!doctype html>') and len(page) > 500_000


def test_folders_that_are_no_results_are_explained(out, tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder .*nothing; give the --out folder'):
        open_results(tmp_path / 'nothing')
    with pytest.raises(FileNotFoundError, match='no file .*transforms.json; give the --out folder of a finished'):
        open_results(tmp_path)
    broken = shutil.copytree(out, tmp_path / 'broken')
    lines = (broken / 'poses.txt').read_text().splitlines()
    (broken / 'poses.txt').write_text('\n'.join(lines[:-1]))
    with pytest.raises(ValueError, match='4 poses in poses.txt but 5 frames'):
        open_results(broken)
    (broken / 'poses.txt').write_text('\n'.join(lines))
    (broken / 'depth' / '2.npy').unlink()
    with pytest.raises(FileNotFoundError, match='there is no depth .*2.npy'):
        open_results(broken).depth(2)
    np.save(broken / 'depth' / '2.npy', np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match=r'2.npy has shape \(3, 4\), but the images have \(120, 160\)'):
        open_results(broken).depth(2)
    for text in '{', '[]', '{"frames": [], "fl_x": 1}':
        (broken / 'transforms.json').write_text(text)
        with pytest.raises(ValueError, match='cannot be read as a transforms.json of tools/recon.py: .*; run it again'):
            open_results(broken)


def test_without_viser_the_error_says_what_to_install(out, monkeypatch):
    monkeypatch.setitem(sys.modules, 'viser', None)
    with pytest.raises(MissingPackage, match="the viewer of reconstructions needs .* pip install viser"):
        Viewer(open_results(out))
