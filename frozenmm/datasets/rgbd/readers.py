"""Readers, one per data set; layouts as the data sets publish them (spec section 7 of FrozenRecon)."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from frozenmm.datasets.rgbd.kitti import kitti_calibration, oxts_poses
from frozenmm.datasets.rgbd.registration import register_depth
from frozenmm.datasets.rgbd.sequence import RGBDSequence
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.lookup import lookup
from frozenmm.version import document

APART_S = 0.02
"""TUM: greatest difference in time between colour and depth or pose."""
SEVEN_SCENES_DEPTH = (585.0, 320.0, 240.0)
SEVEN_SCENES_COLOUR = (525.0, 320.0, 240.0)


def read_sequence(folder: str | Path, kind: str, *, every: int = 1) -> RGBDSequence:
    """A sequence on disk; frames whose pose is not finite are left out.

    Args:
        folder: of the sequence, see the reader of its kind below.
        kind: `'folder'`, `'nyu'`, `'scannet'`, `'7scenes'`, `'tum'` or `'kitti'`.
        every: keep every n-th frame.

    Raises:
        MissingFile: a folder or file of the layout is missing.
        UserError: unknown kind, numbers that cannot be read, or counts that do not fit.
    """
    folder = Path(folder).expanduser()
    reader = FORMATS[lookup(kind, list(FORMATS), 'kind of sequence')]
    if not folder.is_dir():
        raise MissingFile(f'there is no folder {folder.resolve()}')
    if every < 1:
        raise UserError(f'every must be at least 1, got {every}')
    with reading(folder, f'a sequence of kind {kind!r}', f'see {document("video")} for the layouts'):
        sequence = reader(folder)
    sequence = sequence.select(np.isfinite(sequence.poses_c2w).all((1, 2)))
    if not len(sequence):
        raise UserError(f'{folder} holds no frame with a finite pose')
    return sequence.select(slice(None, None, every))


def _plain(folder: Path) -> RGBDSequence:
    """`color/ID.jpg`, `depth/ID.png` in millimetres, `poses.txt` with lines `ID p00 ... p33`, `intrinsics.txt`."""
    rows = [line.split() for line in _text(folder / 'poses.txt') if not line.startswith('#')]
    poses = _numbers([row[1:] for row in rows], 16, folder / 'poses.txt').reshape(-1, 4, 4)
    names = [row[0] for row in rows]
    images = {file.stem: file for file in _files(folder / 'color')}
    missing = [name for name in names if name not in images]
    if missing:
        raise MissingFile(f'{folder / "color"} lacks images {missing[:3]} that poses.txt names')
    return RGBDSequence([images[name] for name in names], [folder / 'depth' / f'{name}.png' for name in names], poses,
                        _matrix(folder / 'intrinsics.txt', 3))


def _nyu(folder: Path) -> RGBDSequence:
    """`rgb/*.jpg`, `depth/*.png` in 1/5000 m, `poses.txt` (3x4 camera-to-world per line), `cam.txt`.

    `cam.txt` holds fx fy cx cy or a 3x3 matrix.
    """
    poses = _rigid(_numbers([line.split() for line in _text(folder / 'poses.txt')], 12, folder / 'poses.txt'))
    with reading(folder / 'cam.txt', 'the camera of the sequence'):
        numbers = np.array(' '.join(_text(folder / 'cam.txt')).replace(',', ' ').split(), float)
    if numbers.size not in (4, 9):
        raise UserError(f'{folder / "cam.txt"} holds {numbers.size} numbers; expected fx fy cx cy or a 3x3 matrix')
    intrinsics = _pinhole(*numbers) if numbers.size == 4 else numbers.reshape(3, 3)
    images, depths = _files(folder / 'rgb'), _files(folder / 'depth')
    _same_count(folder, dict(images=len(images), depths=len(depths), poses=len(poses)))
    return RGBDSequence(images, depths, poses, intrinsics, unit_m=1 / 5000)


def _scannet(folder: Path) -> RGBDSequence:
    """`color/N.jpg`, `depth/N.png` in millimetres, `pose/N.txt`, `intrinsic/intrinsic_{color,depth}.txt`.

    Depth has the resolution of its own camera and is registered by both intrinsics; the cameras' offset is part of the
    data set's calibration of depth.
    """
    place = folder / 'intrinsic' if (folder / 'intrinsic').is_dir() else folder
    colour = _matrix(place / 'intrinsic_color.txt', 4)[:3, :3]
    images = _files(folder / 'color')
    poses = np.stack([_matrix(folder / 'pose' / f'{file.stem}.txt', 4) for file in images])
    register = None
    if (place / 'intrinsic_depth.txt').is_file():
        register = _registration(_matrix(place / 'intrinsic_depth.txt', 4)[:3, :3], colour)
    return RGBDSequence(images, [folder / 'depth' / f'{file.stem}.png' for file in images], poses, colour,
                        register=register)


def _seven_scenes(folder: Path) -> RGBDSequence:
    """`frame-N.color.png`, `frame-N.depth.png` in millimetres (65535: none), `frame-N.pose.txt`; a `seq-01` folder.

    Depth (f = 585) and colour (f = 525) are not registered in the data set; here they are. The poses are the depth
    camera's, whose offset from the colour camera is not published.
    """
    images = _files(folder, '*.color.png')
    colour = _pinhole(SEVEN_SCENES_COLOUR[0], *SEVEN_SCENES_COLOUR)
    depth = _pinhole(SEVEN_SCENES_DEPTH[0], *SEVEN_SCENES_DEPTH)
    stems = [file.name.removesuffix('.color.png') for file in images]
    poses = np.stack([_matrix(folder / f'{stem}.pose.txt', 4) for stem in stems])
    return RGBDSequence(images, [folder / f'{stem}.depth.png' for stem in stems], poses, colour, invalid=65535,
                        register=_registration(depth, colour))


def _tum(folder: Path) -> RGBDSequence:
    """`rgb.txt`, `depth.txt` (time and file), `groundtruth.txt` (time tx ty tz qx qy qz qw); depth in 1/5000 m.

    Depth and pose nearest in time go with every image; images without both within 0.02 s are left out.
    """
    colour, depth = (_timed(folder / name) for name in ('rgb.txt', 'depth.txt'))
    rows = _numbers([line.split() for line in _text(folder / 'groundtruth.txt') if not line.startswith('#')], 8,
                    folder / 'groundtruth.txt')
    kept = []
    for time, file in colour:
        near_depth = min(depth, key=lambda row: abs(row[0] - time))
        near_pose = int(np.abs(rows[:, 0] - time).argmin())
        if max(abs(near_depth[0] - time), abs(rows[near_pose, 0] - time)) <= APART_S:
            kept.append((folder / file, folder / near_depth[1], near_pose))
    if not kept:
        raise UserError(f'no image of {folder} has depth and pose within {APART_S} s; do the files belong together?')
    poses = quaternion_poses(rows[[pose for _, _, pose in kept], 1:])
    return RGBDSequence([image for image, _, _ in kept], [file for _, file, _ in kept], poses,
                        _pinhole(525.0, 525.0, 319.5, 239.5), unit_m=1 / 5000)


def _kitti(folder: Path) -> RGBDSequence:
    """A drive of KITTI raw (`DATE/DATE_drive_N_sync`): `image_02/data`, `oxts/data`, calibration in `DATE`.

    Depth in 1/256 m lies in `proj_depth/groundtruth/image_02` of the drive, as the depth benchmark ships it.
    """
    calibration = kitti_calibration(folder.parent)
    depths = {file.stem: file for file in _files(folder / 'proj_depth' / 'groundtruth' / 'image_02')}
    images = [file for file in _files(folder / 'image_02' / 'data') if file.stem in depths]
    poses = oxts_poses([folder / 'oxts' / 'data' / f'{file.stem}.txt' for file in images])
    poses = poses @ np.linalg.inv(calibration.imu_to_camera)
    return RGBDSequence(images, [depths[file.stem] for file in images], np.linalg.inv(poses[0]) @ poses,
                        calibration.intrinsics_px, unit_m=1 / 256)


FORMATS: dict[str, Callable[[Path], RGBDSequence]] = {
    'folder': _plain, 'nyu': _nyu, 'scannet': _scannet, '7scenes': _seven_scenes, 'tum': _tum, 'kitti': _kitti}
"""Readers by kind."""


def quaternion_poses(rows: np.ndarray) -> np.ndarray:
    """Poses (F, 4, 4) from rows tx ty tz qx qy qz qw; quaternions need not have length 1."""
    x, y, z, w = (rows[:, 3:] / np.linalg.norm(rows[:, 3:], axis=1, keepdims=True)).T
    rotation = np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                         [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                         [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]]).transpose(2, 0, 1)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotation, rows[:, :3]
    return poses


def _registration(depth: np.ndarray, colour: np.ndarray) -> Callable[[np.ndarray, tuple[int, int]], np.ndarray]:
    return lambda values, size: register_depth(values, depth, colour, size)


def _pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def _rigid(rows: np.ndarray) -> np.ndarray:
    last = np.broadcast_to([0.0, 0, 0, 1], (len(rows), 1, 4))
    return np.concatenate((rows.reshape(-1, 3, 4), last), 1)


def _text(file: Path) -> list[str]:
    with reading(file, 'a text file of the sequence', 'is this the right kind of sequence?'):
        return [line.strip() for line in file.read_text(encoding='utf-8').splitlines() if line.strip()]


def _numbers(rows: Sequence[Sequence[str]], count: int, file: Path) -> np.ndarray:
    try:
        values = np.array(rows, dtype=float)
    except ValueError:
        values = np.zeros(0)
    if values.ndim != 2 or values.shape[1] != count:
        raise UserError(f'{file} must hold {count} numbers per line')
    return values


def _matrix(file: Path, side: int) -> np.ndarray:
    return _numbers([line.split() for line in _text(file)], side, file).reshape(-1, side)[:side]


def _files(folder: Path, pattern: str = '*') -> list[Path]:
    if not folder.is_dir():
        raise MissingFile(f'there is no folder {folder.resolve()}; is this the right kind of sequence?')
    found = [file for file in folder.glob(pattern) if file.suffix.lower() in ('.png', '.jpg', '.jpeg')]
    if not found:
        raise MissingFile(f'{folder.resolve()} holds no image {pattern}')
    return sorted(found, key=lambda file: [int(part) if part.isdigit() else part
                                           for part in re.split(r'(\d+)', file.name)])


def _timed(file: Path) -> list[tuple[float, str]]:
    with reading(file, 'a list of times and files'):
        return [(float(line.split()[0]), line.split()[1]) for line in _text(file) if not line.startswith('#')]


def _same_count(folder: Path, counts: dict[str, int]) -> None:
    if len(set(counts.values())) > 1:
        raise UserError(f'{folder} holds ' + ', '.join(f'{count} {name}' for name, count in counts.items())
                         + '; expected one of each per frame')
