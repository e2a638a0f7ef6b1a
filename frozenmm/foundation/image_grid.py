"""Frozen maps on the grid of the image: what a detector's or segmentor's heads expect of a stride."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from frozenmm.foundation.resample import axis_weights


def to_image_grid(feature_map: Tensor, region: Tensor, size: tuple[int, int], step: tuple[float, float]) -> Tensor:
    """A map resampled so that cell (i, j) covers the same pixels of the image in every image of the batch.

    Bilinear, widened when shrinking (no aliasing), no gradient to the region. Cells that the map does not reach are 0.

    Args:
        feature_map: (B, C, h, w), spread evenly over the region.
        region: (B, 4) xyxy in pixels of the image, see `TowerFeatures.region`.
        size: rows and columns of the result.
        step: height and width of a cell of the result in pixels; cell (0, 0) starts at pixel (0, 0).

    Returns:
        (B, C, *size), dtype of the map.
    """
    height, width = feature_map.shape[-2:]
    x1, y1, x2, y2 = region.to(torch.float64).unbind(1)

    def weights(low: Tensor, high: Tensor, cells: int, out: int, pixels: float) -> Tensor:
        scale = cells / (high - low)
        valid = torch.full((len(low), ), cells, device=low.device)
        matrix = axis_weights(-low * scale, (out * pixels - low) * scale, out, valid, cells, interpolation='bilinear')
        return matrix.to(feature_map.dtype)[:, None]

    rows = weights(y1, y2, height, size[0], step[0])
    columns = weights(x1, x2, width, size[1], step[1])
    return rows @ feature_map @ columns.transpose(-1, -2)


def grid_size(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns that a plain backbone's map of this stride has: partial cells count."""
    return math.ceil(image_size[0] / stride), math.ceil(image_size[1] / stride)


def grid_step(image_size: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """Pixels per cell of a map of unknown stride.

    The power of two under which an image of this size has a map of this size, as in every feature pyramid; where there
    is none, the map is taken to span the image exactly.
    """
    guess = 2**round(math.log2(max(image_size[0] / size[0], image_size[1] / size[1])))
    if grid_size(image_size, max(1, guess)) == tuple(size):
        return float(guess), float(guess)
    return image_size[0] / size[0], image_size[1] / size[1]
