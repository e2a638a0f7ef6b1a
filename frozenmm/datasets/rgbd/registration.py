"""Depth of one camera as another one sees it."""
from __future__ import annotations

import cv2
import numpy as np

SAME_SURFACE = 0.03
"""Samples that land in one pixel are averaged if they lie within 3 % of the nearest one; the others are hidden."""


def register_depth(depth: np.ndarray, depth_intrinsics: np.ndarray, colour_intrinsics: np.ndarray,
                   size: tuple[int, int], depth_to_colour: np.ndarray | None = None) -> np.ndarray:
    """Depth warped from a depth camera to a colour camera.

    Args:
        depth: (h, w), 0 where nothing was measured.
        depth_intrinsics: (3, 3).
        colour_intrinsics: (3, 3), at the size wanted.
        size: (height, width) wanted.
        depth_to_colour: (4, 4) motion between the cameras; None where it is negligible.

    Returns:
        (height, width) float32, 0 where no sample lands. Where colour is finer than depth, the warp is done at the
        resolution of the depth and enlarged without interpolation, so that no holes open between samples.
    """
    factor = min(1.0, float(depth_intrinsics[0, 0] / colour_intrinsics[0, 0]))
    height, width = (max(1, round(length * factor)) for length in size)
    scale = np.array([width / size[1], height / size[0]])
    rows, columns = np.nonzero(depth > 0)
    z = depth[rows, columns].astype(np.float64)
    rays = (np.stack((columns, rows), 1) - depth_intrinsics[:2, 2]) / np.diag(depth_intrinsics)[:2]
    points = np.concatenate((rays * z[:, None], z[:, None]), 1)
    if depth_to_colour is not None:
        points = points @ depth_to_colour[:3, :3].T + depth_to_colour[:3, 3]
    points = points[points[:, 2] > 1e-6]
    z = points[:, 2]
    # pixel centres are integers, so the image's edge, not its first centre, is what a resize keeps in place
    pixels = points[:, :2] / z[:, None] * np.diag(colour_intrinsics)[:2] + colour_intrinsics[:2, 2]
    target = np.floor((pixels + 0.5) * scale).astype(int)
    inside = (target >= 0).all(1) & (target < [width, height]).all(1)
    place, z = target[inside, 1] * width + target[inside, 0], z[inside]
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, place, z)
    front = z <= nearest[place] * (1 + SAME_SURFACE)
    count = np.bincount(place[front], minlength=height * width)
    total = np.bincount(place[front], z[front], minlength=height * width)
    warped = (total / np.maximum(count, 1)).reshape(height, width).astype(np.float32)
    return warped if (height, width) == size else cv2.resize(warped, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
