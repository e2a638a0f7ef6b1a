"""Files of a reconstruction: point clouds and meshes (binary PLY), depth, poses (TUM), COLMAP and nerfstudio."""
from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from frozenmm.compat.dependencies import require
from frozenmm.compat.files import write_whole
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.reconstruction.gltf import glb_content
from frozenmm.reconstruction.mesh import Mesh
from frozenmm.reconstruction.motions import quaternion_rotation, rotation_quaternion

CLOUD_STRIDE = 4
"""Every n-th pixel of a frame is in the point cloud."""


def write_ply(path: Path, mesh: Mesh) -> Path:
    """A coloured mesh, or a point cloud where it has no faces, as binary little-endian PLY."""
    vertices, faces = (np.zeros(len(part), record) for part, record in zip((mesh.vertices, mesh.faces), _ply_types()))
    vertices['xyz'], vertices['rgb'] = mesh.vertices, mesh.colours
    faces['count'] = 3
    if len(faces):
        faces['index'] = mesh.faces
    text = _ply_header(len(vertices), len(faces)).encode()
    write_whole(path, text + vertices.tobytes() + faces.tobytes())
    return path


def write_glb(path: Path, mesh: Mesh) -> Path:
    """A coloured mesh as binary glTF, whose axes are x right, y up and z towards the viewer; see `glb_content`."""
    turned = mesh.vertices * np.array([1, -1, -1], np.float32)
    write_whole(path, glb_content(Mesh(turned, mesh.faces, mesh.colours)))
    return path


def read_ply(path: Path) -> Mesh:
    """A mesh or point cloud from a PLY file that `write_ply` made.

    Raises:
        MissingFile: no such file.
        UserError: another layout (other programs' PLY files open with trimesh), or an incomplete file.
    """
    if not path.is_file():
        raise MissingFile(f'there is no file {path.resolve()}')
    with reading(path, 'a PLY file', 'open those of other programs with trimesh'):
        header, _, body = path.read_bytes().partition(b'end_header\n')
        lines = header.decode('ascii', errors='replace').splitlines()
        counts = {line.split()[1]: int(line.split()[2]) for line in lines if line.startswith('element')}
        number = counts.get('vertex', 0), counts.get('face', 0)
        records = _ply_types()
        split = number[0] * records[0].itemsize
        if (lines != _ply_header(*number).partition('end_header')[0].splitlines()
                or len(body) != split + number[1] * records[1].itemsize):
            raise UserError(f'{path} is no complete PLY file of this package; open those of other programs with '
                            'trimesh')
        vertices, faces = np.frombuffer(body[:split], records[0]), np.frombuffer(body[split:], records[1])
    return Mesh(vertices['xyz'].copy(), faces['index'].astype(np.int64), vertices['rgb'].copy())


def _ply_types() -> tuple[np.dtype, np.dtype]:
    """The records of a vertex and of a face."""
    return (np.dtype([('xyz', '<f4', 3), ('rgb', 'u1', 3)]), np.dtype([('count', 'u1'), ('index', '<i4', 3)]))


def _ply_header(vertices: int, faces: int) -> str:
    lines = ['ply', 'format binary_little_endian 1.0', f'element vertex {vertices}',
             *(f'property float {axis}' for axis in 'xyz'),
             *(f'property uchar {colour}' for colour in ('red', 'green', 'blue'))]
    if faces:
        lines += [f'element face {faces}', 'property list uchar int vertex_indices']
    return '\n'.join([*lines, 'end_header', ''])


def write_depth(folder: Path, names: Sequence[str], depth: np.ndarray) -> list[Path]:
    """Depth maps (F, H, W) as float32 `.npy` and as 16-bit PNG; the PNGs' unit is written to `scale.json`.

    A PNG holds depth / unit, where the unit lets the greatest depth of the clip fill 60000 steps.
    """
    cv2 = require('cv2', 'writing depth images')
    unit = float(np.nanmax(depth)) / 60000
    written = []

    def write(name: str, content: bytes | str) -> None:
        write_whole(folder / name, content)
        written.append(folder / name)

    for name, values in zip(names, depth):
        stream = io.BytesIO()
        np.save(stream, values.astype(np.float32))
        write(f'{name}.npy', stream.getvalue())
        steps = np.clip(np.rint(values / unit), 0, 65535).astype(np.uint16)
        write(f'{name}.png', cv2.imencode('.png', steps)[1].tobytes())
    write('scale.json', json.dumps({'depth_per_step': unit, 'missing': 0}, indent=1))
    return written


def write_confidence(folder: Path, names: Sequence[str], confidence: np.ndarray) -> None:
    """Confidence (F, H, W) of the depth, 0 to 1, as 8-bit PNG (255 is 1); those of an earlier run go."""
    cv2 = require('cv2', 'writing confidence images')
    for outdated in folder.glob('*.png'):
        outdated.unlink()
    for name, values in zip(names, confidence):
        steps = np.rint(values.astype(np.float32) * 255).astype(np.uint8)
        write_whole(folder / f'{name}.png', cv2.imencode('.png', steps)[1].tobytes())


def write_images(folder: Path, names: Sequence[str], images: np.ndarray) -> list[str]:
    """The images (F, H, W, 3) that the cameras belong to, under their names; exports refer to them.

    They are written out, because frames of a video have no files, and straightened ones differ from the input's.

    Returns:
        paths relative to the folder's parent.
    """
    cv2 = require('cv2', 'writing images')
    for name, image in zip(names, images):
        suffix = Path(name).suffix
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix.lower() in ('.jpg', '.jpeg') else []
        content = cv2.imencode(suffix, image[..., ::-1], quality)[1].tobytes()
        write_whole(folder / name, content)
    return [f'{folder.name}/{name}' for name in names]


def write_tum(path: Path, poses_c2w: np.ndarray, times_s: Sequence[float] | None = None) -> Path:
    """Camera-to-world poses (F, 4, 4) as lines `time tx ty tz qx qy qz qw`; the index is the time by default."""
    times = times_s if times_s is not None else range(len(poses_c2w))
    quaternions = rotation_quaternion(torch.from_numpy(poses_c2w[:, :3, :3])).numpy()
    lines = ['# time tx ty tz qx qy qz qw (camera to world)']
    for time, pose, (w, x, y, z) in zip(times, poses_c2w, quaternions):
        lines.append(' '.join(f'{value:.9g}' for value in (time, *pose[:3, 3], x, y, z, w)))
    write_whole(path, '\n'.join(lines) + '\n')
    return path


def read_tum(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Times (F, ) and camera-to-world poses (F, 4, 4) from lines `time tx ty tz qx qy qz qw`; `#` begins a comment.

    Raises:
        MissingFile: no such file.
        UserError: a line with another count of numbers, or a quaternion of length 0.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFile(f'there are no poses at {path.absolute()}')
    with reading(path, 'a file of poses', 'expected lines of 8 numbers, `time tx ty tz qx qy qz qw`'):
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith('#')]
        rows = [line.split() for line in lines]
        wrong = next((line for line, row in zip(lines, rows) if len(row) != 8), None)
        if wrong is not None or not rows:
            raise UserError(f'{path.name}: expected lines of 8 numbers, `time tx ty tz qx qy qz qw`, got '
                            f'{wrong if rows else "none"!r}')
        values = np.array(rows, dtype=float)
    x, y, z, w = values[:, 4:].T
    length = np.linalg.norm(values[:, 4:], axis=1, keepdims=True)
    if not np.isfinite(values).all():
        wrong = lines[int(np.argmin(np.isfinite(values).all(1)))]
        raise UserError(f'{path.name}: expected finite numbers, got {wrong!r}')
    if (length < 1e-6).any():
        raise UserError(f'{path.name}: a quaternion of length 0 is no rotation')
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    unit = torch.from_numpy(np.stack((w, x, y, z), 1) / length)
    poses[:, :3, :3], poses[:, :3, 3] = quaternion_rotation(unit).numpy(), values[:, 1:4]
    return values[:, 0], poses


def write_colmap(folder: Path, names: Sequence[str], poses_c2w: np.ndarray, focal_px: float,
                 size: tuple[int, int], points: Mesh | None = None) -> list[Path]:
    """A COLMAP text model: cameras.txt, images.txt, points3D.txt.

    COLMAP puts the centre of the first pixel at (0.5, 0.5), so its principal point is half the size.
    """
    height, width = size
    camera = (f'# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy\n'
              f'1 PINHOLE {width} {height} {focal_px:.9g} {focal_px:.9g} {width / 2:g} {height / 2:g}\n')
    w2c = np.linalg.inv(poses_c2w)
    quaternions = rotation_quaternion(torch.from_numpy(w2c[:, :3, :3])).numpy()
    images = ['# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of 2D points (none here)']
    for index, (name, pose, quaternion) in enumerate(zip(names, w2c, quaternions)):
        numbers = ' '.join(f'{value:.9g}' for value in (*quaternion, *pose[:3, 3]))
        images += [f'{index + 1} {numbers} 1 {name}', '']
    rows = ['# POINT3D_ID X Y Z R G B ERROR TRACK']
    if points is not None:
        columns = (*points.vertices.T.tolist(), *points.colours.T.tolist())
        rows += [f'{index} {x:.6g} {y:.6g} {z:.6g} {r} {g} {b} 0' for index, (x, y, z, r, g, b)
                 in enumerate(zip(*columns), 1)]
    texts = {'cameras.txt': camera, 'images.txt': '\n'.join(images) + '\n', 'points3D.txt': '\n'.join(rows) + '\n'}
    for file, text in texts.items():
        write_whole(folder / file, text)
    return [folder / file for file in texts]


def write_nerfstudio(path: Path, image_paths: Sequence[str], poses_c2w: np.ndarray, focal_px: float,
                     size: tuple[int, int]) -> Path:
    """A nerfstudio `transforms.json`; its cameras look along -z with y up, ours along z with y down.

    Args:
        path: of the file.
        image_paths: of the images, relative to the file's folder.
        poses_c2w: (F, 4, 4).
        focal_px: the principal point is the centre.
        size: (height, width).
    """
    height, width = size
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    frames = [{'file_path': str(name), 'transform_matrix': (pose @ flip).tolist()}
              for name, pose in zip(image_paths, poses_c2w)]
    content = {'camera_model': 'OPENCV', 'w': width, 'h': height, 'fl_x': focal_px, 'fl_y': focal_px,
               'cx': width / 2, 'cy': height / 2, 'k1': 0.0, 'k2': 0.0, 'p1': 0.0, 'p2': 0.0, 'frames': frames}
    write_whole(path, json.dumps(content, indent=1))
    return path


def point_cloud(images: np.ndarray, depth: np.ndarray, poses_c2w: np.ndarray, focal_px: float, *,
                stride: int = CLOUD_STRIDE) -> Mesh:
    """Points of every n-th pixel of all frames, in world coordinates, without faces.

    Args:
        images: (F, H, W, 3) uint8.
        depth: (F, H, W), 0 where it is unknown.
        poses_c2w: (F, 4, 4).
        focal_px: focal length; the principal point is the centre.
        stride: distance of the pixels.

    >>> image, depth = np.zeros((1, 1, 1, 3), np.uint8), np.full((1, 1, 1), 2.0)
    >>> point_cloud(image, depth, np.eye(4)[None], 100.0).vertices.tolist()
    [[0.0, 0.0, 2.0]]
    """
    height, width = depth.shape[1:]
    v, u = np.meshgrid(np.arange(0, height, stride), np.arange(0, width, stride), indexing='ij')
    rays = np.stack(((u - (width - 1) / 2) / focal_px, (v - (height - 1) / 2) / focal_px, np.ones(u.shape)), -1)
    z = depth[:, v, u]
    points = np.einsum('fij,fhwj->fhwi', poses_c2w[:, :3, :3], z[..., None] * rays) + poses_c2w[:, None, None, :3, 3]
    known = z > 0
    return Mesh(points[known].astype(np.float32), np.zeros((0, 3), dtype=np.int64), images[:, v, u][known])
