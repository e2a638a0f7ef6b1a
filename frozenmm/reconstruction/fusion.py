"""A mesh of an aligned clip."""
from __future__ import annotations

import numpy as np
import torch

from frozenmm.reconstruction.align import Alignment
from frozenmm.reconstruction.frames import Progress
from frozenmm.reconstruction.mesh import Mesh, drop_specks
from frozenmm.reconstruction.sparse_tsdf import fuse_frames
from frozenmm.reconstruction.tsdf import frustum_bounds

VOXELS_PER_SIDE = 128
TRUNCATION = 4.0
"""In voxels; less than where depth is measured, because the frames agree by now and edges come out thinner."""
FAR_PERCENTILE = 99.0
EDGE = 0.1
"""Relative step of depth between neighbouring pixels above which both are taken for an edge."""


def without_far(depth: np.ndarray) -> np.ndarray:
    """Depth (F, H, W) with the farthest percent set to 0 (unknown): a few wild pixels would blow up the scene."""
    return np.where(depth <= np.percentile(depth, FAR_PERCENTILE), depth, 0)


def without_edges(depth: np.ndarray, *, step: float = EDGE) -> np.ndarray:
    """Depth (F, H, W) with pixels at jumps set to 0 (unknown): a network smears them between front and back.

    A pixel goes where its depth and that of a pixel beside it differ by more than `step` of the nearer one.

    >>> without_edges(np.array([[[1.0, 1.05, 2.0, 2.0]]])).tolist()
    [[[1.0, 0.0, 0.0, 2.0]]]
    """
    known = depth > 0
    jump = np.zeros(depth.shape, dtype=bool)
    for axis in (1, 2):
        low = np.minimum(*_pairs(depth, axis))
        apart = (np.abs(np.diff(depth, axis=axis)) > step * low) & np.logical_and(*_pairs(known, axis))
        for side in range(2):
            where = [slice(None)] * 3
            where[axis] = slice(side, depth.shape[axis] - 1 + side)
            jump[tuple(where)] |= apart
    return np.where(jump, 0, depth)


def _pairs(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and their next neighbours along an axis."""
    count = values.shape[axis]
    return np.take(values, range(count - 1), axis), np.take(values, range(1, count), axis)


def disagreement(depth: np.ndarray, poses_c2w: np.ndarray, focal_px: float) -> float:
    """What nine of ten depths differ by at most, in the unit of the poses, where two frames see the same surface.

    Every eighth pixel of a frame is carried into the next frame and the one after it. Where the two depths there differ
    by more than a fifth, one surface hides the other.

    Args:
        depth: (F, H, W), 0 is unknown.
        poses_c2w: (F, 4, 4).
        focal_px: of all frames.

    Returns:
        the difference; 0 where no two frames see the same.
    """
    height, width = depth.shape[1:]
    v, u = (axis.ravel() for axis in np.mgrid[4:height:8, 4:width:8])
    rays = np.stack(((u - (width - 1) / 2) / focal_px, (v - (height - 1) / 2) / focal_px, np.ones(len(u))))
    found = []
    for first, second in ((i, i + step) for step in (1, 2) for i in range(len(depth) - step)):
        move = np.linalg.inv(poses_c2w[second]) @ poses_c2w[first]
        near = depth[first, v, u]
        x, y, z = move[:3, :3] @ (rays * near) + move[:3, 3:]
        front = (near > 0) & (z > 0)
        column, row = (np.rint(focal_px * value[front] / z[front] + (side - 1) / 2).astype(int)
                       for value, side in ((x, width), (y, height)))
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        seen, z = depth[second, row[inside], column[inside]], z[front][inside]
        same = (seen > 0) & (np.abs(seen - z) < 0.2 * z)
        found.append(np.abs(seen - z)[same])
    differences = np.concatenate(found) if found else np.zeros(0)
    return float(np.quantile(differences, 0.9)) if len(differences) else 0.0


def _posed_depth(result: Alignment) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth that takes part (F, H, W), intrinsics (3, 3) and camera-to-world poses (F, 4, 4)."""
    depth = torch.from_numpy(without_edges(without_far(result.depth))).float()
    height, width = depth.shape[1:]
    intrinsics = torch.tensor([[result.focal_px, 0, (width - 1) / 2], [0, result.focal_px, (height - 1) / 2],
                               [0, 0, 1]], dtype=torch.float64)
    return depth, intrinsics, torch.from_numpy(result.poses_c2w)


def fitting_voxel_size(result: Alignment) -> float:
    """Edge of a voxel in the unit of the poses, by the size of the scene and the noise of the depth.

    The longest side of the scene over 128, but at least half of what nine of ten depths of neighbouring frames differ
    by: finer voxels would hold noise.
    """
    depth, intrinsics, poses = _posed_depth(result)
    bounds = frustum_bounds(depth, intrinsics, poses)
    return max(float((bounds[:, 1] - bounds[:, 0]).max()) / VOXELS_PER_SIDE,
               disagreement(depth.double().numpy(), result.poses_c2w, result.focal_px) / 2)


def fuse(images: np.ndarray, result: Alignment, *, voxel_size: float | None = None, min_faces: int = 0,
         report: Progress | None = None) -> Mesh:
    """A mesh of an aligned clip; pixels at jumps of depth and the farthest percent take no part.

    Args:
        images: (F, H, W, 3) uint8.
        result: of the alignment.
        voxel_size: in the unit of the poses; by default that of `fitting_voxel_size`.
        min_faces: connected parts with fewer faces are dropped.
        report: progress.
    """
    depth, intrinsics, poses = _posed_depth(result)
    if voxel_size is None:
        voxel_size = fitting_voxel_size(result)
    volume = fuse_frames(depth, torch.from_numpy(images), intrinsics, poses, voxel_size=voxel_size,
                         truncation_voxels=TRUNCATION,
                         report=None if report is None else lambda done, total: report('fusion', done, total))
    return drop_specks(volume.extract_mesh(), min_faces)
