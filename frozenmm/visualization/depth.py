"""Depth drawn beside its picture."""
from __future__ import annotations

import numpy as np

from frozenmm.compat import require

_MARGIN = 8


def depth_colours(values: np.ndarray, *, nearer_is_larger: bool) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a depth map: near parts warm, far parts cool, between its 1st and 99th percentile.

    Args:
        values: (H, W) depth or disparity; what is not finite is drawn black.
        nearer_is_larger: true for disparity.
    """
    cv2 = require('cv2', 'drawing')
    known = np.isfinite(values)
    shares = np.zeros(values.shape, np.float32)
    if known.any():
        low, high = np.percentile(values[known], (1, 99))
        shares[known] = np.clip((values[known] - low) / max(float(high - low), 1e-12), 0, 1)
    if not nearer_is_larger:
        shares = 1 - shares
    coloured = cv2.applyColorMap((shares * 255).round().astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1].copy()
    coloured[~known] = 0
    return coloured


def draw_depth(image: np.ndarray, values: np.ndarray, *, nearer_is_larger: bool, width: int = 480) -> np.ndarray:
    """A picture and its depth side by side.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (H, W) depth or disparity.
        nearer_is_larger: true for disparity.
        width: of each of the two; high pictures get twice this height at most.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: the map has another size than the image.
    """
    if image.shape[:2] != values.shape:
        raise ValueError(f'the image has {image.shape[:2]} pixels, the depth map {values.shape}; both must agree')
    pil = require('PIL.Image', 'drawing')
    scale = min(width / image.shape[1], 2 * width / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    sheet = pil.new('RGB', (2 * size[0] + 3 * _MARGIN, size[1] + 2 * _MARGIN), (255, 255, 255))
    sheet.paste(pil.fromarray(image).resize(size, pil.Resampling.BICUBIC), (_MARGIN, _MARGIN))
    coloured = pil.fromarray(depth_colours(values, nearer_is_larger=nearer_is_larger))
    sheet.paste(coloured.resize(size, pil.Resampling.BILINEAR), (2 * _MARGIN + size[0], _MARGIN))
    return np.asarray(sheet)
