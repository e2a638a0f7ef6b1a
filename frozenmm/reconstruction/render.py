"""Pictures and depth of a mesh from any camera, on the CPU: enough for reports and checks."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.mesh import Mesh

CANDIDATES = 4_000_000
"""Pairs of a triangle and a pixel that are looked at together."""


def render_mesh(mesh: Mesh, intrinsics_px: np.ndarray, pose_c2w: np.ndarray,
                size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Colour and depth of a mesh.

    Args:
        mesh: to be drawn, both sides of its faces.
        intrinsics_px: (3, 3).
        pose_c2w: (4, 4).
        size: (height, width).

    Returns:
        colours (H, W, 3) uint8, white where nothing is hit, and z-depth (H, W) float64, 0 there. Triangles that reach
        the camera's plane are left out.
    """
    height, width = size
    w2c = np.linalg.inv(pose_c2w)
    points = mesh.vertices.astype(np.float64) @ w2c[:3, :3].T + w2c[:3, 3]
    z = np.maximum(points[:, 2], NEAREST)
    pixels = points[:, :2] / z[:, None] * np.diag(intrinsics_px)[:2] + intrinsics_px[:2, 2]
    faces = mesh.faces[(points[mesh.faces, 2] > NEAREST).all(1)]
    of_face = pixels[faces]
    low = np.maximum(np.ceil(of_face.min(1)), 0).astype(int)
    high = np.minimum(np.floor(of_face.max(1)), [width - 1, height - 1]).astype(int)
    spans = np.maximum(high - low + 1, 0)
    faces, low, spans = (values[spans.prod(1) > 0] for values in (faces, low, spans))
    picture = _Picture(width, np.full(height * width, np.inf), np.full((height * width, 3), 255.0))
    corners = _Corners(pixels, z, mesh.colours)
    ends = np.cumsum(spans.prod(1))
    begin = 0
    while begin < len(faces):
        done = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, done + CANDIDATES, side='right')), begin + 1)
        part = slice(begin, end)
        _draw(picture, corners, faces[part], low[part], spans[part])
        begin = end
    hit = np.isfinite(picture.depth)
    return (np.clip(np.rint(picture.colours), 0, 255).astype(np.uint8).reshape(height, width, 3),
            np.where(hit, picture.depth, 0).reshape(height, width))


@dataclass
class _Picture:
    """Flat buffers that are drawn into: depth (H W, ), infinite where nothing is, and colours (H W, 3)."""

    width: int
    depth: np.ndarray
    colours: np.ndarray


@dataclass
class _Corners:
    """Vertices as the camera sees them: pixels (V, 2), z-depth (V, ) and colours (V, 3)."""

    pixels: np.ndarray
    z: np.ndarray
    colours: np.ndarray


def _draw(picture: _Picture, corners: _Corners, faces: np.ndarray, low: np.ndarray, spans: np.ndarray) -> None:
    """Draw triangles (T, 3): every pixel of their boxes, from `low` (T, 2) on `spans` (T, 2) wide, is tested."""
    count = spans.prod(1)
    face = np.repeat(np.arange(len(faces)), count)
    order = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    x, y = low[face, 0] + order % spans[face, 0], low[face, 1] + order // spans[face, 0]
    a, b, c = (corners.pixels[faces[face, corner]] for corner in range(3))
    twice = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    twice = np.where(twice == 0, np.inf, twice)  # a triangle seen from its edge covers nothing
    second = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (y - a[:, 1])) / twice
    third = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (x - a[:, 0]) * (b[:, 1] - a[:, 1])) / twice
    first = 1 - second - third
    inside = (first >= -1e-9) & (second >= -1e-9) & (third >= -1e-9) & np.isfinite(twice)
    face, place = face[inside], (y * picture.width + x)[inside]
    shares = np.stack((first, second, third), 1)[inside] / corners.z[faces[face]]  # 1 / z is linear in the picture
    found = 1 / shares.sum(1)
    nearest = np.lexsort((found, place))
    place = place[nearest]
    leading = nearest[np.concatenate(([True], place[1:] != place[:-1]))[:len(place)]] if len(place) else nearest
    where = (y * picture.width + x)[inside][leading]
    nearer = found[leading] < picture.depth[where]
    leading, where = leading[nearer], where[nearer]
    picture.depth[where] = found[leading]
    weights = shares[leading] * found[leading][:, None]
    picture.colours[where] = (weights[..., None] * corners.colours[faces[face[leading]]]).sum(1)


def outside_view(mesh: Mesh, poses_c2w: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (3, 3) and a pose (4, 4) that show a whole scene from above and behind its first camera."""
    height, width = size
    low, high = np.percentile(mesh.vertices, [1, 99], axis=0)
    centre, reach = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    focal = 1.1 * width
    up, forward = -poses_c2w[:, :3, 1].mean(0), poses_c2w[:, :3, 2].mean(0)
    up = up / np.linalg.norm(up)
    level = forward - up * (forward @ up)
    level = level / max(float(np.linalg.norm(level)), 1e-9)
    direction = 0.75 * level - 0.66 * up
    direction = direction / np.linalg.norm(direction)
    right = np.cross(direction, up)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack((right, np.cross(direction, right), direction), 1)
    pose[:3, 3] = centre - direction * reach * 2.0 * max(width / height, 1.0)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]), pose
