"""Mask logits at output size, a band of rows at a time: the memory-bounded torch path of the mask operators."""
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .mask_geometry import AxisTaps, axis_taps

# Working memory of the torch path. The widest temporary of a band (all queries and classes) stays below it, unless one
# row alone is larger.
BAND_BYTES = 32 * 2**20
# Infinite logits count as this much.
LARGEST_LOGIT = 1e30


def rows_per_band(values_per_row: int) -> int:
    """How many output rows fit into `BAND_BYTES`, when a row makes `values_per_row` float32 values; at least 1."""
    return max(1, BAND_BYTES // (4 * max(1, values_per_row)))


def _sample(values: Tensor, dim: int, index: Tensor, weight: Tensor) -> Tensor:
    """`values` with axis `dim` replaced by the taps' weighted sums; index and weight (output, T)."""
    shape = [1] * values.dim()
    shape[dim] = -1
    result = _picked(values, dim, index[:, 0]).mul_(weight[:, 0].view(shape))
    for tap in range(1, index.shape[1]):
        result.addcmul_(_picked(values, dim, index[:, tap]), weight[:, tap].view(shape))
    return result


def _picked(values: Tensor, dim: int, index: Tensor) -> Tensor:
    # an infinite logit times a weight of 0 would be NaN; the largest finite magnitudes do not occur
    return values.index_select(dim, index).clamp_(-LARGEST_LOGIT, LARGEST_LOGIT)


def logit_bands(mask_logits: Tensor, padded: list[int], image: list[int], output: list[int],
                extra_values_per_pixel: int = 0) -> Iterator[tuple[int, int, Tensor]]:
    """Bands (first row, end row, logits (Q, rows, W) float32) that cover the output from top to bottom.

    Args:
        mask_logits: (Q, h, w) float32.
        padded: size of the first resize.
        image: its top-left part that is kept.
        output: size of the second resize.
        extra_values_per_pixel: float32 values that the caller makes per output pixel, beside the Q logits.
    """
    queries, height, width = mask_logits.shape
    device = mask_logits.device
    rows = _on(axis_taps(height, padded[0], image[0], output[0]), device)
    columns = _on(axis_taps(width, padded[1], image[1], output[1]), device)
    # the column pass holds two maps at once
    step = rows_per_band(output[1] * (2 * queries + extra_values_per_pixel))
    for first in range(0, output[0], step):
        end = min(first + step, output[0])
        band = _sample(mask_logits, 1, rows.index[first:end], rows.weight[first:end])
        yield first, end, _sample(band, 2, columns.index, columns.weight)


def _on(taps: AxisTaps, device: torch.device) -> AxisTaps:
    return AxisTaps(taps.index.to(device, non_blocking=True), taps.weight.to(device, non_blocking=True))
