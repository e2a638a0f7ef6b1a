"""What photographs and calibrations say of a camera."""
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from frozenmm.errors import UserError
from frozenmm.reconstruction.given_lens import GivenLens, exif_focal, given_lens

K = np.array([[600.0, 0, 319.5], [0, 610, 239.5], [0, 0, 1]])


def _photo(path, size=(400, 300), **entries):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({int(key[1:]): value for key, value in entries.items()})
    Image.new('RGB', size).save(path, exif=exif)
    return path


def test_the_35_mm_equivalent_refers_to_the_diagonal(tmp_path):
    assert exif_focal(_photo(tmp_path / 'a.jpg', _41989=43)) == pytest.approx(43 / np.hypot(36, 24) * 500 / 400)
    upright = exif_focal(_photo(tmp_path / 'b.jpg', (300, 400), _41989=43))
    assert upright == exif_focal(tmp_path / 'a.jpg')


def test_a_focal_length_with_the_resolution_of_the_sensor_is_enough(tmp_path):
    photo = _photo(tmp_path / 'a.jpg', _37386=4.0, _41486=10000.0, _41488=3, _40962=4000, _40963=3000)
    assert exif_focal(photo) == pytest.approx(4.0 / 10 * 10000 / 4000)
    inches = _photo(tmp_path / 'b.jpg', _37386=4.0, _41486=25400.0, _40962=4000)
    assert exif_focal(inches) == pytest.approx(4.0 / 25.4 * 25400 / 4000)


@pytest.mark.parametrize('entries', [{}, {'_37386': 4.0}, {'_41989': 0}, {'_41989': 0, '_37386': 4.0, '_41486': 0.0}])
def test_exif_that_says_nothing_gives_none(tmp_path, entries):
    assert exif_focal(_photo(tmp_path / 'a.jpg', **entries)) is None
    (tmp_path / 'b.jpg').write_bytes(b'no image')
    assert exif_focal(tmp_path / 'b.jpg') is None


def test_numbers_are_a_camera_of_opencv():
    found = given_lens([600, 610, 319.5, 239.5, -0.2, 0.05, 0.001, 0.002])
    np.testing.assert_array_equal(found.matrix, K)
    assert found.distortion == (-0.2, 0.05, 0.001, 0.002) and found.size is None and not found.fisheye
    for wrong in ([600, 610, 319], [600, 0, 319, 239], [600, 610, 319.5, 239.5, 1]):
        with pytest.raises(UserError, match='camera takes fx, fy, cx, cy'):
            given_lens(wrong)


@pytest.mark.parametrize('line, distortion, fisheye', [
    ('PINHOLE 640 480 600 610 320 240', (0, 0, 0, 0, 0), False),
    ('OPENCV 640 480 600 610 320 240 -0.2 0.05 0.001 0.002', (-0.2, 0.05, 0.001, 0.002, 0), False),
    ('OPENCV_FISHEYE 640 480 600 610 320 240 0.1 0.2 0.3 0.4', (0.1, 0.2, 0.3, 0.4), True)])
def test_a_camera_of_colmap_counts_pixels_from_their_corners(tmp_path, line, distortion, fisheye):
    (tmp_path / 'cameras.txt').write_text(f'# Camera list\n1 {line}\n')
    found = given_lens(tmp_path / 'cameras.txt')
    np.testing.assert_allclose(found.matrix, K)
    assert found.distortion == distortion and found.size == (480, 640) and found.fisheye == fisheye


def test_one_focal_length_of_colmap_and_nerfstudio(tmp_path):
    (tmp_path / 'cameras.txt').write_text('1 SIMPLE_RADIAL 640 480 600 320 240 -0.1\n')
    assert given_lens(str(tmp_path / 'cameras.txt')).matrix[1, 1] == 600
    content = {'w': 640, 'h': 480, 'camera_angle_x': 2 * np.arctan(320 / 600), 'k1': -0.1, 'frames': []}
    (tmp_path / 'transforms.json').write_text(json.dumps(content))
    found = given_lens(tmp_path / 'transforms.json')
    np.testing.assert_allclose(found.matrix, [[600, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])
    assert found.distortion[0] == -0.1 and found.size == (480, 640)


def test_a_calibration_of_opencv(tmp_path):
    path = tmp_path / 'camera.yml'
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write('image_width', 640)
    storage.write('image_height', 480)
    storage.write('camera_matrix', K)
    storage.write('distortion_coefficients', np.array([[-0.2, 0.05, 0, 0, 0.01]]))
    storage.release()
    found = given_lens(path)
    np.testing.assert_array_equal(found.matrix, K)
    assert found.distortion == (-0.2, 0.05, 0, 0, 0.01) and found.size == (480, 640)


@pytest.mark.parametrize('name, text, message', [
    ('cameras.txt', '1 PINHOLE 640 480 600', 'a camera PINHOLE with 1 parameters'),
    ('cameras.txt', '1 PINHOLE 4 4 6 6 2 2\n2 PINHOLE 4 4 7 7 2 2', 'holds 2 cameras'),
    ('cameras.txt', 'hello', 'cameras.txt cannot be read as a camera'),
    ('transforms.json', '{"w": 4, "h": 4, "frames": []}', 'holds no focal length'),
    ('transforms.json', '[]', 'transforms.json cannot be read as a camera'),
    ('camera.yml', '%YAML:1.0\n---\na: 1\n', 'holds no camera_matrix'), ('camera.yml', 'x', 'cannot be read')])
def test_files_without_a_camera_are_explained(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        given_lens(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='there is no camera'):
        given_lens(tmp_path / 'nothing.txt')


def test_a_camera_follows_the_size_of_the_images_and_refuses_another_shape():
    lens = GivenLens(K, size=(480, 640)).at((240, 320), 'a.jpg')
    np.testing.assert_allclose(lens.matrix, [[300, 0, 159.5], [0, 305, 119.5], [0, 0, 1]])
    with pytest.raises(UserError, match='a.jpg has 320x320 pixels, but the camera was calibrated for 640x480'):
        GivenLens(K, size=(480, 640)).at((320, 320), 'a.jpg')


def test_straightening_looks_where_the_lens_sees():
    matrix = np.array([[60.0, 0, 20], [0, 60, 30], [0, 0, 1]])
    looks = GivenLens(matrix, (-0.2, 0, 0, 0)).straightening((60, 80), 60.0)
    height, width = looks.shape[:2]
    np.testing.assert_allclose(looks[height // 2, width // 2], [20, 30], atol=1e-4)  # the principal point is the centre
    plane = np.array([0.4, 0.3])
    seen = looks[height // 2 + 18, width // 2 + 24]
    np.testing.assert_allclose(seen, 60 * plane * (1 - 0.2 * 0.25) + [20, 30], atol=1e-3)
