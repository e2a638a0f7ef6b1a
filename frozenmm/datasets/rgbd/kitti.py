"""Calibration and GPS/IMU poses of KITTI raw.

Source: Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013, and its development kit.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frozenmm.errors import UserError, reading

EARTH_RADIUS_M = 6378137.0


@dataclass(frozen=True)
class KittiCalibration:
    """Of the left colour camera.

    Attributes:
        intrinsics_px: (3, 3) of the rectified images.
        imu_to_camera: (4, 4).
    """

    intrinsics_px: np.ndarray
    imu_to_camera: np.ndarray


def kitti_calibration(folder: Path) -> KittiCalibration:
    """Calibration of a day from `calib_cam_to_cam.txt`, `calib_velo_to_cam.txt` and `calib_imu_to_velo.txt`."""
    cameras = _entries(folder / 'calib_cam_to_cam.txt', 'P_rect_02', 'R_rect_00')
    projection, rectify = cameras['P_rect_02'].reshape(3, 4), np.eye(4)
    rectify[:3, :3] = cameras['R_rect_00'].reshape(3, 3)
    shift = np.eye(4)
    shift[0, 3] = projection[0, 3] / projection[0, 0]  # from the first grey camera to the left colour camera
    return KittiCalibration(projection[:, :3], shift @ rectify @ _motion(folder / 'calib_velo_to_cam.txt')
                            @ _motion(folder / 'calib_imu_to_velo.txt'))


def oxts_poses(files: Sequence[Path]) -> np.ndarray:
    """Poses (F, 4, 4) of the IMU in a level world (east, north, up), from latitude, longitude, altitude and angles.

    The Mercator projection is scaled at the first frame's latitude.
    """
    rows = np.array([_values(file) for file in files])
    latitude, longitude, altitude, roll, pitch, yaw = rows.T
    scale = np.cos(np.radians(latitude[0]))
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, 0, 3] = scale * EARTH_RADIUS_M * np.radians(longitude)
    poses[:, 1, 3] = scale * EARTH_RADIUS_M * np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2))
    poses[:, 2, 3] = altitude
    poses[:, :3, :3] = _turn(2, yaw) @ _turn(1, pitch) @ _turn(0, roll)
    return poses


def _turn(axis: int, angle: np.ndarray) -> np.ndarray:
    """Right-handed rotations (F, 3, 3) about a coordinate axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn = np.tile(np.eye(3), (len(angle), 1, 1))
    turn[:, first, first] = turn[:, second, second] = np.cos(angle)
    turn[:, first, second], turn[:, second, first] = -np.sin(angle), np.sin(angle)
    return turn


def _values(file: Path) -> np.ndarray:
    with reading(file, 'a packet of the GPS/IMU', 'a drive of KITTI raw has one per image'):
        values = np.array(file.read_text().split(), float)
    if values.size < 6:
        raise UserError(f'{file} holds {values.size} numbers; a packet of the GPS/IMU has at least 6')
    return values[:6]


def _motion(file: Path) -> np.ndarray:
    entries, motion = _entries(file, 'R', 'T'), np.eye(4)
    motion[:3, :3], motion[:3, 3] = entries['R'].reshape(3, 3), entries['T']
    return motion


def _entries(file: Path, *names: str) -> dict[str, np.ndarray]:
    with reading(file, 'a calibration of KITTI raw', 'the calibration lies in the folder of the day'):
        lines = (line.partition(':') for line in file.read_text().splitlines() if ':' in line)
        found = {name: np.array(numbers.split(), float) for name, _, numbers in lines if name in names}
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f'{file} lacks the entries {missing}')
    return found
