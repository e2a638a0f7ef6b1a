"""The second aggregation: cells of the whole image take what similar cells have, by SAM (Trident) or alone (RADSeg)."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError

NEGATIVE_THRESHOLD, HIGHEST_THRESHOLD = 0.6, 0.9
"""Trident's: what a negative threshold becomes, and the highest one."""


@dataclass(frozen=True)
class SelfAggregation:
    """Every cell becomes the mean of the cells similar to it. Source: RADSeg (SCGA).

    Attributes:
        scale: of (cosine - mean cosine); negative values are dropped.
        compat: as the official code: the mean is that of the whole batch.
    """

    scale: float = 10.0
    compat: bool = False

    def __call__(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) to the same shape."""
        cells = features.flatten(2)
        unit = F.normalize(cells, dim=1)
        similarity = unit.transpose(1, 2) @ unit
        mean = similarity.mean((1, 2), keepdim=True)
        similarity = (similarity - (mean.mean() if self.compat else mean)) * self.scale
        dropped = similarity < 0
        if not self.compat:
            dropped.diagonal(dim1=1, dim2=2).fill_(False)
        weights = similarity.masked_fill(dropped, -torch.inf).softmax(-1)
        return (cells @ weights.transpose(1, 2)).view_as(features)


@dataclass(frozen=True)
class SamAggregation:
    """Cells take what SAM's last block looks at and finds similar. Source: Trident, section 3.3.

    Attributes:
        factor: times the mean similarity of a head is its threshold; 0 keeps everything that is not negative.
        keep_negative: a threshold below 0 stays; else it becomes 0.6.
        halves: the left and the right half of the picture each have their own SAM (Cityscapes).
        compat: as the official code: a row without any weight gives NaN instead of the cell itself.
    """

    factor: float = 1.2
    keep_negative: bool = True
    halves: bool = False
    compat: bool = False

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise UserError(f'aggregate.factor must be 0 or more, got {self.factor}')

    def weights(self, attention: Tensor, values: Tensor) -> Tensor:
        """Rows that sum to 1, shared by all heads.

        Args:
            attention: (heads, M, M) after the softmax, of the cells that show the picture.
            values: (heads, M, d) of these.

        Returns:
            (M, M).
        """
        unit = F.normalize(values, dim=-1)
        # the mean over heads and keys, of every query
        threshold = self.factor * torch.einsum('hic,hc->hi', unit, unit.mean(1)).mean(0)
        if not self.keep_negative:
            threshold = torch.where(threshold < 0, NEGATIVE_THRESHOLD, threshold)
        threshold = threshold.clamp(max=HIGHEST_THRESHOLD)[:, None]
        total = torch.zeros_like(attention[0])
        for rows, head in zip(attention, unit):  # head by head: all of them at once need 400 MB each for SAM-B
            total += rows.masked_fill(head @ head.T <= threshold, 0)
        sums = total.sum(-1, keepdim=True)
        if not self.compat:
            total.diagonal().add_((sums[:, 0] == 0).to(total))
            sums = total.sum(-1, keepdim=True)
        return total / sums

    def __call__(self, features: Tensor, sam: list[SamCells]) -> Tensor:
        """Features (1, C, h, w) of the whole image on SAM's grid, (1, C, rows, columns), halves side by side."""
        middle = features.shape[-1] // 2
        parts = [features[..., :middle], features[..., middle:]] if self.halves else [features]
        done = []
        for part, cells in zip(parts, sam, strict=True):
            part = F.interpolate(part, cells.grid, mode='bilinear', align_corners=False)
            mixed = self.weights(cells.attention, cells.values) @ part.flatten(2)[0].T
            done.append(mixed.T[None].unflatten(2, cells.grid))
        return torch.cat(done, -1)


@dataclass
class SamCells:
    """What SAM's last block that looks at the whole picture did, of the cells that show it.

    Attributes:
        attention: (heads, M, M) after the softmax over all cells.
        values: (heads, M, d).
        grid: rows and columns, M in all.
    """

    attention: Tensor
    values: Tensor
    grid: tuple[int, int]
