"""One coefficient of radial distortion: the ideal place x on the plane at depth 1 is seen at x (1 + k |x|^2)."""
from __future__ import annotations

import numpy as np

from frozenmm.compat.dependencies import require

STEPS = 8


def distort(plane: np.ndarray, radial: float) -> np.ndarray:
    """Where ideal places (..., 2) are seen, (..., 2).

    >>> distort(np.array([[0.5, 0.0]]), 0.1).tolist()
    [[0.5125, 0.0]]
    """
    return plane * (1 + radial * (plane**2).sum(-1, keepdims=True)) if radial else plane


def straighten(plane: np.ndarray, radial: float) -> np.ndarray:
    """Ideal places (..., 2) of what is seen at (..., 2), by fixed-point steps: to 1e-6 for |k| |x|^2 below 0.15."""
    ideal = plane
    for _ in range(STEPS if radial else 0):
        ideal = plane / (1 + radial * (ideal**2).sum(-1, keepdims=True))
    return ideal


def straighten_clip(images: np.ndarray, depth: np.ndarray, focal_px: float, radial: float,
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Images (F, H, W, 3) and depth (F, H, W) as a pinhole of the same focal length would see them.

    Depth comes from the nearest pixel, because a mean across an edge lies on neither side; what no camera saw is 0.
    """
    if not radial:
        return images, depth
    cv2 = require('cv2', 'straightening images')
    height, width = depth.shape[1:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    source = (focal_px * distort((pixels - centre) / focal_px, radial) + centre).astype(np.float32)
    u, v = source[..., 0], source[..., 1]
    straight = [cv2.remap(image, u, v, cv2.INTER_LINEAR) for image in images]
    return np.stack(straight), np.stack([cv2.remap(d, u, v, cv2.INTER_NEAREST) for d in depth])
