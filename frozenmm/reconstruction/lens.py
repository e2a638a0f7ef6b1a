"""What a lens does to the ideal place x on the plane at depth 1: it is seen at x (1 + k1 |x|^2 + k2 |x|^4) + x0.

A lens is an array (4, ): the coefficients k1 and k2 of the radial distortion, and the offset x0 of the principal point
from the centre of the image, in focal lengths.
"""
from __future__ import annotations

import numpy as np

from frozenmm.compat.dependencies import require

LENS = 4
NO_LENS = np.zeros(LENS)
STEPS = 25


def distort(plane: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Where ideal places (..., 2) are seen, (..., 2).

    >>> distort(np.array([[0.5, 0.0]]), np.array([0.1, 0.0, 0.0, 1.0])).tolist()
    [[0.5125, 1.0]]
    """
    if not lens.any():
        return plane
    squared = (plane**2).sum(-1, keepdims=True)
    return plane * (1 + squared * (lens[0] + lens[1] * squared)) + lens[2:]


def straighten(seen: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Ideal places (..., 2) of what is seen at (..., 2), by fixed-point steps: to 1e-6 for |k1| |x|^2 below 0.25."""
    ideal = centred = seen - lens[2:]
    for _ in range(STEPS if lens[:2].any() else 0):
        squared = (ideal**2).sum(-1, keepdims=True)
        ideal = centred / np.maximum(1 + squared * (lens[0] + lens[1] * squared), 0.3)
    return ideal


def lens_of_bend(bend: float, focal_px: float, half_diagonal_px: float, coefficients: int = 2) -> np.ndarray:
    """The lens (4, ) that agrees best with r / (1 + bend r^2), r in half diagonals, for places seen in the image.

    Source: the division model of Fitzgibbon, Simultaneous linear estimation of multiple view geometry and lens
    distortion, CVPR 2001; it needs no focal length, so it can be found before there is one.
    """
    reach = half_diagonal_px / focal_px
    seen = np.linspace(0, 1, 33)[1:]
    ideal = reach * seen / (1 + bend * seen**2)
    rows = np.stack((ideal**3, ideal**5), 1)[:, :coefficients]
    found = np.linalg.lstsq(rows, reach * seen - ideal, rcond=None)[0]
    return np.pad(found, (0, LENS - coefficients)) if bend else NO_LENS.copy()


def straighten_clip(images: np.ndarray, depth: np.ndarray, focal_px: float, lens: np.ndarray,
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Images (F, H, W, 3) and depth (F, H, W) as a pinhole of the same focal length, centred, would see them.

    Depth comes from the nearest pixel, because a mean across an edge lies on neither side; what no camera saw is 0.
    """
    if not lens.any():
        return images, depth
    cv2 = require('cv2', 'straightening images')
    height, width = depth.shape[1:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    source = (focal_px * distort((pixels - centre) / focal_px, lens) + centre).astype(np.float32)
    u, v = source[..., 0], source[..., 1]
    straight = [cv2.remap(image, u, v, cv2.INTER_LINEAR) for image in images]
    return np.stack(straight), np.stack([cv2.remap(d, u, v, cv2.INTER_NEAREST) for d in depth])
