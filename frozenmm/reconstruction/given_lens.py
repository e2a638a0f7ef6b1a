"""What photographs and calibrations say of a camera: EXIF, COLMAP, nerfstudio, OpenCV, or numbers."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.compat.image_files import open_picture
from frozenmm.errors import MissingFile, UserError, reading

FILM_DIAGONAL_MM = float(np.hypot(36, 24))
EXIF_ERROR = 0.08
"""Standard deviation of the logarithm of a focal length from EXIF: makers round, and crop for stabilisation."""
_INCH_MM, _CM_MM = 25.4, 10.0
_COLMAP: dict[str, tuple[str, ...]] = {
    'SIMPLE_PINHOLE': ('f', 'cx', 'cy'), 'PINHOLE': ('fx', 'fy', 'cx', 'cy'),
    'SIMPLE_RADIAL': ('f', 'cx', 'cy', 'k1'), 'RADIAL': ('f', 'cx', 'cy', 'k1', 'k2'),
    'OPENCV': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'p1', 'p2'),
    'SIMPLE_RADIAL_FISHEYE': ('f', 'cx', 'cy', 'k1'), 'RADIAL_FISHEYE': ('f', 'cx', 'cy', 'k1', 'k2'),
    'OPENCV_FISHEYE': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'k3', 'k4')}
"""Parameters of COLMAP's models in their order in cameras.txt."""


@dataclass(frozen=True)
class GivenLens:
    """A calibrated camera; the centre of the first pixel is (0, 0).

    Attributes:
        matrix: (3, 3) intrinsics in pixels.
        distortion: k1, k2, p1, p2, k3 of OpenCV, or k1 to k4 of its fisheye.
        size: (height, width) of the images that it belongs to; None: of those given.
        fisheye: the distortion is that of `cv2.fisheye`.
    """

    matrix: np.ndarray
    distortion: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    fisheye: bool = False

    def at(self, size: tuple[int, int], name: str) -> GivenLens:
        """The same camera for images of (height, width).

        Raises:
            UserError: another shape than that of the calibration.
        """
        if self.size is None or self.size == size:
            return self
        factor = size[1] / self.size[1]
        if abs(size[0] / self.size[0] / factor - 1) > 0.02:
            raise UserError(f'{name} has {size[1]}x{size[0]} pixels, but the camera was calibrated for '
                            f'{self.size[1]}x{self.size[0]}; give the camera of these images')
        matrix = self.matrix.copy()
        matrix[:2, 2] += 0.5
        matrix[:2] *= factor
        matrix[:2, 2] -= 0.5
        return replace(self, matrix=matrix, size=size)

    def straightening(self, size: tuple[int, int], focal_px: float) -> np.ndarray:
        """Where a centred pinhole of that focal length looks in images of (height, width), (H, W, 2) float32.

        The new image is so large that nothing is lost on the side that is farther from the principal point.
        """
        cv2 = require('cv2', 'straightening images')
        scale = focal_px / np.array([self.matrix[0, 0], self.matrix[1, 1]])
        sides = [max(c, side - 1 - c) for c, side in zip(self.matrix[:2, 2], size[::-1])]
        width, height = (2 * int(np.ceil(min(reach, side) * s)) + 1
                         for reach, side, s in zip(sides, size[::-1], scale))
        wanted = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]])
        d = np.array(self.distortion or (0.0, ) * 4)
        maps = (cv2.fisheye.initUndistortRectifyMap(self.matrix, d, np.eye(3), wanted, (width, height), cv2.CV_32FC1)
                if self.fisheye else
                cv2.initUndistortRectifyMap(self.matrix, d, None, wanted, (width, height), cv2.CV_32FC1))
        return np.stack(maps, -1)


def exif_focal(path: Path) -> float | None:
    """Focal length over the longer side of an image file, from its EXIF; None where that does not say it.

    From the 35 mm equivalent, which refers to the diagonal, or else from the focal length and the resolution of the
    sensor's plane. A focal length in millimetres alone says nothing without the sensor's size.
    """
    try:
        with reading(path, 'an image'), open_picture(path) as picture:
            exif = picture.getexif()
            values = {**exif, **exif.get_ifd(0x8769)}
            width, height = picture.size
    except UserError:  # its pixels may be fine all the same, and whoever reads them says if they are not
        return None
    longer = max(width, height)
    equivalent, focal_mm = _positive(values.get(41989)), _positive(values.get(37386))
    if equivalent:
        return equivalent / FILM_DIAGONAL_MM * float(np.hypot(width, height)) / longer
    resolution, stated = _positive(values.get(41486)), _positive(values.get(40962))
    if not (focal_mm and resolution and stated):
        return None
    unit_mm = _CM_MM if values.get(41488) == 3 else _INCH_MM
    return focal_mm / unit_mm * resolution / max(stated, _positive(values.get(40963)))


def _positive(value: object) -> float:
    """A number of EXIF, 0 where there is none."""
    try:
        number = float(value)  # type: ignore[arg-type]  # fractions of Pillow, or whatever a camera wrote
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if np.isfinite(number) and number > 0 else 0.0


def given_lens(value: object) -> GivenLens:
    """A camera from numbers `fx fy cx cy [k1 k2 p1 p2 [k3]]` or a file.

    Files are COLMAP's `cameras.txt`, a `transforms.json` of nerfstudio, and a calibration of OpenCV (`.yml`, `.yaml`,
    `.xml`).

    Raises:
        MissingFile: no such file.
        UserError: other numbers, or a file without a camera.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        numbers = [_positive(v) if index < 2 else float(v) for index, v in enumerate(value)]
        if len(numbers) not in (4, 8, 9) or not all(numbers[:2]):
            raise UserError(f'camera takes fx, fy, cx, cy and, where the lens distorts, k1, k2, p1, p2 and k3, got '
                            f'{list(value)}')
        return GivenLens(_matrix(*numbers[:4]), tuple(numbers[4:]))
    path = Path(str(value)).expanduser()
    if not path.is_file():
        raise MissingFile(f'there is no camera {path.absolute()}; give fx,fy,cx,cy, or a cameras.txt of COLMAP, a '
                          'transforms.json of nerfstudio or a .yml of OpenCV')
    with reading(path, 'a camera', 'expected a cameras.txt of COLMAP, a transforms.json of nerfstudio, or a .yml of '
                 'OpenCV'):
        if path.suffix == '.json':
            return _of_nerfstudio(json.loads(path.read_text(encoding='utf-8')), path)
        if path.suffix in ('.yml', '.yaml', '.xml'):
            return _of_opencv(path)
        return _of_colmap(path)


def _matrix(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], float)


def _of_names(values: Mapping[str, float], size: tuple[int, int], *, fisheye: bool) -> GivenLens:
    """A camera from named parameters whose pixel centres are at halves."""
    fx = values['fx'] if 'fx' in values else values['f']
    matrix = _matrix(fx, values.get('fy', fx), values['cx'] - 0.5, values['cy'] - 0.5)
    names = ('k1', 'k2', 'k3', 'k4') if fisheye else ('k1', 'k2', 'p1', 'p2', 'k3')
    return GivenLens(matrix, tuple(float(values.get(name, 0.0)) for name in names), size, fisheye)


def _of_colmap(path: Path) -> GivenLens:
    rows = [line.split() for line in path.read_text(encoding='utf-8').splitlines()
            if line.strip() and not line.startswith('#')]
    if len({tuple(row[1:]) for row in rows}) != 1:
        raise UserError(f'{path} holds {len(rows)} cameras; expected one for all images')
    model, width, height, *numbers = rows[0][1:]
    if model not in _COLMAP or len(numbers) != len(_COLMAP[model]):
        raise UserError(f'{path} has a camera {model} with {len(numbers)} parameters; expected one of '
                        f'{", ".join(_COLMAP)}')
    values = dict(zip(_COLMAP[model], map(float, numbers)))
    return _of_names(values, (int(height), int(width)), fisheye='FISHEYE' in model)


def _of_nerfstudio(content: Mapping[str, object], path: Path) -> GivenLens:
    frames = content.get('frames')
    first = frames[0] if isinstance(frames, list) and frames else {}
    values = {key: float(value) for key, value in {**first, **content}.items() if isinstance(value, (int, float))}
    width, height = int(values['w']), int(values['h'])
    if 'fl_x' not in values and 'camera_angle_x' in values:
        values['fl_x'] = width / 2 / float(np.tan(values['camera_angle_x'] / 2))
    if 'fl_x' not in values:
        raise UserError(f'{path} holds no focal length; expected fl_x or camera_angle_x')
    found = {'fx': values['fl_x'], 'fy': values.get('fl_y', values['fl_x']), 'cx': values.get('cx', width / 2),
             'cy': values.get('cy', height / 2), **{k: values[k] for k in ('k1', 'k2', 'k3', 'k4', 'p1', 'p2')
                                                    if k in values}}
    return _of_names(found, (height, width), fisheye=content.get('camera_model') == 'OPENCV_FISHEYE')


def _of_opencv(path: Path) -> GivenLens:
    cv2 = require('cv2', 'reading a calibration of OpenCV')
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    try:
        found: dict[str, np.ndarray] = {}
        for kind, keys in (('matrix', ('camera_matrix', 'Camera_Matrix', 'cameraMatrix', 'K', 'M1')),
                           ('distortion', ('distortion_coefficients', 'Distortion_Coefficients', 'distCoeffs', 'D',
                                           'D1', 'dist_coeffs'))):
            for key in keys:
                value = storage.getNode(key).mat()
                if value is not None:
                    found[kind] = np.asarray(value, float)
        sides = [int(storage.getNode(key).real()) for key in ('image_height', 'image_width')]
        model = storage.getNode('distortion_model').string()
    finally:
        storage.release()
    if 'matrix' not in found or found['matrix'].shape != (3, 3):
        raise UserError(f'{path} holds no camera_matrix of 3x3 numbers')
    size = (sides[0], sides[1]) if all(sides) else None
    return GivenLens(found['matrix'], tuple(found.get('distortion', np.zeros(0)).ravel().tolist()), size,
                     'fisheye' in model or model == 'equidistant')
