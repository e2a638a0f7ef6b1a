"""Readers on small generated folders in the layouts of the data sets."""
from __future__ import annotations

import cv2
import numpy as np
import pytest

from frozenmm.datasets.rgbd import read_sequence, register_depth
from frozenmm.datasets.rgbd.readers import quaternion_poses

SIZE = (24, 32)
POSES = quaternion_poses(np.array([[0, 0, 0, 0, 0, 0, 1], [0.1, 0.2, 0.3, 0, 0.1, 0, 2], [0.2, 0, 1, 0.1, 0, 0, 1.0]]))


def image(path, index):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*SIZE, 3), (10, 20, 40 * index + 40), np.uint8))


def depth(path, steps, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(size, steps, np.uint16)
    values[0, 0] = 0
    cv2.imwrite(str(path), values)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rows(matrix):
    return '\n'.join(' '.join(f'{value:.9f}' for value in row) for row in matrix)


def check(sequence, metres=2.0, count=3):
    assert len(sequence) == count
    assert abs(sequence.image(1)[5, 5].astype(int) - (80, 20, 10)).max() <= 4  # RGB; JPEG
    values = sequence.depth(1)
    assert values.shape == SIZE and values.dtype == np.float32 and values[0, 0] == 0
    np.testing.assert_allclose(values[8:16, 8:24], metres, rtol=1e-6)
    np.testing.assert_allclose(sequence.poses_c2w, POSES[:count], atol=1e-6)


def test_plain_folder(tmp_path):
    for i in range(3):
        image(tmp_path / f'color/{i * 10:06d}.jpg', i)
        depth(tmp_path / f'depth/{i * 10:06d}.png', 2000)
    write(tmp_path / 'poses.txt', '# id and pose\n' + '\n'.join(
        f'{i * 10:06d} ' + ' '.join(f'{v:.9f}' for v in POSES[i].flatten()) for i in range(3)))
    write(tmp_path / 'intrinsics.txt', '30 0 15.5\n0 30 11.5\n0 0 1')
    sequence = read_sequence(tmp_path, 'folder')
    check(sequence)
    assert sequence.intrinsics_px[0, 0] == 30
    assert [file.stem for file in read_sequence(tmp_path, 'folder', every=2).images] == ['000000', '000020']
    (tmp_path / 'color/000010.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks images \['000010'\]"):
        read_sequence(tmp_path, 'folder')


def test_nyu(tmp_path):
    for i in range(3):
        image(tmp_path / f'rgb/{i + 8}.jpg', i)  # 8, 9, 10: natural order
        depth(tmp_path / f'depth/{i + 8}.png', 10000)
    write(tmp_path / 'poses.txt', rows(POSES[:, :3].reshape(3, 12)))
    write(tmp_path / 'cam.txt', '518.8 519.4 325.5 253.7')
    sequence = read_sequence(tmp_path, 'nyu')
    check(sequence)
    np.testing.assert_allclose(sequence.intrinsics_px, [[518.8, 0, 325.5], [0, 519.4, 253.7], [0, 0, 1]])
    write(tmp_path / 'cam.txt', '518.8 519.4')
    with pytest.raises(ValueError, match='holds 2 numbers; expected fx fy cx cy or a 3x3 matrix'):
        read_sequence(tmp_path, 'nyu')
    write(tmp_path / 'cam.txt', '1 0 0 0 1 0 0 0 1')
    (tmp_path / 'depth/8.png').unlink()
    with pytest.raises(ValueError, match='3 images, 2 depths, 3 poses; expected one of each'):
        read_sequence(tmp_path, 'nyu')


def test_scannet_drops_lost_frames_and_registers_depth(tmp_path):
    for i in range(3):
        image(tmp_path / f'color/{i}.jpg', i)
        depth(tmp_path / f'depth/{i}.png', 2000, (12, 16))
        write(tmp_path / f'pose/{i}.txt', rows(POSES[i]) if i < 2 else rows(np.full((4, 4), -np.inf)))
    write(tmp_path / 'intrinsic/intrinsic_color.txt', '30 0 15.5 0\n0 30 11.5 0\n0 0 1 0\n0 0 0 1')
    write(tmp_path / 'intrinsic/intrinsic_depth.txt', '15 0 7.5 0\n0 15 5.5 0\n0 0 1 0\n0 0 0 1')
    check(read_sequence(tmp_path, 'scannet'), count=2)


def test_7scenes_registers_depth_to_the_colour_camera(tmp_path):
    for i in range(3):
        image(tmp_path / f'frame-{i:06d}.color.png', i)
        values = np.full((480, 640), 2000, np.uint16)
        values[:, 420:] = 3000
        values[100:120, 100:120] = 65535
        cv2.imwrite(str(tmp_path / f'frame-{i:06d}.depth.png'), values)
        write(tmp_path / f'frame-{i:06d}.pose.txt', rows(POSES[i]))
    cv2.imwrite(str(tmp_path / 'frame-000000.color.png'), np.zeros((480, 640, 3), np.uint8))
    sequence = read_sequence(tmp_path, '7scenes')
    np.testing.assert_allclose(sequence.poses_c2w, POSES, atol=1e-6)
    found = sequence.depth(0)
    # the edge at column 420 of the depth camera is seen (420 - 320) 525 / 585 right of the colour camera's centre
    assert found[240, 408] == pytest.approx(2) and found[240, 411] == pytest.approx(3)
    assert (found[110 * 525 // 585 + 20:110 * 525 // 585 + 25, 116:130] == 0).any()  # 65535 is no depth
    assert (found[:20] == 0).all() and (found[:, :30] == 0).all()  # the depth camera sees less


def test_tum_takes_depth_and_pose_nearest_in_time(tmp_path):
    colour, depths, truth = ['# time file'], ['# time file'], ['# time tx ty tz qx qy qz qw']
    for i in range(3):
        image(tmp_path / f'rgb/{i}.png', i)
        depth(tmp_path / f'depth/{i}.png', 10000)
        colour.append(f'{100 + i}.000 rgb/{i}.png')
        depths.append(f'{100 + i}.015 depth/{i}.png')
    for time in np.arange(99.9, 102.3, 0.01):
        number = round(time - 100)
        away = 0.0 if abs(time - 100 - number) < 0.004 else 5.0
        x, y, z = POSES[min(max(number, 0), 2), :3, 3]
        quaternion = [(0, 0, 0, 1), (0, 0.1, 0, 2), (0.1, 0, 0, 1)][min(max(number, 0), 2)]
        truth.append(f'{time:.3f} {x + away} {y} {z} ' + ' '.join(map(str, quaternion)))
    for name, lines in (('rgb', colour), ('depth', depths), ('groundtruth', truth)):
        write(tmp_path / f'{name}.txt', '\n'.join(lines))
    check(read_sequence(tmp_path, 'tum'))
    write(tmp_path / 'depth.txt', '50.0 depth/0.png')
    with pytest.raises(ValueError, match=r'no image of .* has depth and pose within 0.02 s'):
        read_sequence(tmp_path, 'tum')


def test_kitti_poses_follow_gps_and_calibration(tmp_path):
    drive = tmp_path / '2011_09_26' / '2011_09_26_drive_0001_sync'
    for i in range(4):
        image(drive / f'image_02/data/{i:010d}.png', i)
        # 0.00001 degrees of latitude are 1.11 m; yaw 0 points east
        write(drive / f'oxts/data/{i:010d}.txt', f'49.0 {8.4 + i * 1e-5:.7f} 110 0 0 {0.1 * i} 1 2 3')
        if i:
            depth(drive / f'proj_depth/groundtruth/image_02/{i:010d}.png', 512)
    write(tmp_path / '2011_09_26/calib_cam_to_cam.txt',
          'calib_time: 09-Jan-2012\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 720 0 16 72 0 720 12 0 0 0 1 0')
    # the camera looks along the IMU's x axis, 0.5 m before it
    write(tmp_path / '2011_09_26/calib_velo_to_cam.txt', 'R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -0.5')
    write(tmp_path / '2011_09_26/calib_imu_to_velo.txt', 'R: 1 0 0 0 1 0 0 0 1\nT: 0 0 0')
    sequence = read_sequence(drive, 'kitti')
    assert len(sequence) == 3 and sequence.depth(0)[5, 5] == 2.0  # the first frame has no depth
    np.testing.assert_allclose(sequence.poses_c2w[0], np.eye(4), atol=1e-9)
    step = np.cos(np.radians(49)) * 6378137 * np.radians(1e-5)
    # seen from the first camera, whose IMU has yaw 0.1: the car drives east, and the camera turns left about y
    camera = np.array([0.5, 0.1, 0])  # of the IMU's frame: forward 0.5, and 72 / 720 to the left
    place = [np.array([step * i, 0, 0]) + rotate(0.1 * (i + 1)) @ camera for i in range(3)]
    wanted = rotate(0.1).T @ (place[2] - place[0])
    np.testing.assert_allclose(sequence.poses_c2w[2, :3, 3], [-wanted[1], -wanted[2], wanted[0]], atol=1e-6)
    np.testing.assert_allclose(sequence.poses_c2w[1, :3, 2], [-np.sin(0.1), 0, np.cos(0.1)], atol=1e-9)
    (tmp_path / '2011_09_26/calib_imu_to_velo.txt').write_text('R: 1 0 0 0 1 0 0 0 1')
    with pytest.raises(ValueError, match=r"calib_imu_to_velo.txt lacks the entries \['T'\]"):
        read_sequence(drive, 'kitti')


def rotate(yaw):
    return np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])


def test_registration_keeps_the_nearer_surface():
    values = np.full((48, 64), 4.0)
    values[:, 30:34] = 1.0
    wide = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    shift = np.eye(4)
    shift[0, 3] = 0.1  # 6 px at 1 m, 1.5 px at 4 m
    found = register_depth(values, wide, wide, (48, 64), shift)
    assert (found[:, 36:40] == 1).all()
    assert (found[:, 41:60] == 4).all() and (found[:, 5:31] == 4).all()
    assert (found[:, 0] == 0).all()  # nothing lands there, and nothing is invented


def test_a_missing_or_wrong_layout_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        read_sequence(tmp_path / 'nothing', 'tum')
    with pytest.raises(FileNotFoundError, match='is this the right kind of sequence'):
        read_sequence(tmp_path, 'tum')
    with pytest.raises(ValueError, match='scannet'):
        read_sequence(tmp_path, 'scanet')
    write(tmp_path / 'poses.txt', '1 2 3')
    with pytest.raises(ValueError, match='poses.txt must hold 12 numbers per line'):
        read_sequence(tmp_path, 'nyu')
