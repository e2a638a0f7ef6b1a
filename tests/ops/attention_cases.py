"""Inputs of deformable attention for the tests: small, seeded, of any shape and type."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Case:
    value: Tensor
    shapes: Tensor
    starts: Tensor
    locations: Tensor
    weights: Tensor
    reference: Tensor
    offsets: Tensor
    logits: Tensor

    @property
    def plain(self) -> tuple[Tensor, ...]:
        return self.value, self.shapes, self.starts, self.locations, self.weights

    @property
    def fused(self) -> tuple[Tensor, ...]:
        return self.value, self.shapes, self.starts, self.reference, self.offsets, self.logits

    def grad(self) -> Tensor:
        batch, queries, heads = self.locations.shape[:3]
        size = (batch, queries, heads * self.value.shape[3])
        return torch.randn(size, generator=torch.Generator().manual_seed(5)).to(self.value.dtype)


def make_case(*, batch: int = 2, shapes: tuple[tuple[int, int], ...] = ((7, 5), (4, 3), (1, 2)), queries: int = 9,
              heads: int = 3, channels: int = 16, points: int = 3, dtype: torch.dtype = torch.float32,
              box: bool = False, seed: int = 0) -> Case:
    """A case with some locations outside their maps."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    real = torch.float64 if dtype == torch.float64 else torch.float32
    levels = len(shapes)
    sizes = torch.tensor(shapes).reshape(levels, 2)
    areas = sizes.prod(1)
    logits = normal(batch, queries, heads, levels * points)
    reference = torch.rand((batch, queries, levels, 4 if box else 2), generator=generator, dtype=torch.float64)
    locations = torch.rand((batch, queries, heads, levels, points, 2), generator=generator, dtype=torch.float64)
    return Case(value=normal(batch, int(areas.sum()), heads, channels).to(dtype),
                shapes=sizes,
                starts=areas.cumsum(0) - areas,
                locations=(locations * 1.6 - 0.3).to(real),
                weights=logits.softmax(-1).view(batch, queries, heads, levels, points).to(real),
                reference=reference.to(real),
                offsets=(2 * normal(batch, queries, heads, levels, points, 2)).to(real),
                logits=logits.to(real))


def sampled_by_loops(case: Case) -> Tensor:
    """The definition read off the paper, one number at a time: (B, Q, H * D) float64."""
    batch, queries, heads, levels, points, _ = case.locations.shape
    channels = case.value.shape[3]
    value, out = case.value.double(), torch.zeros(batch, queries, heads, channels, dtype=torch.float64)
    for b, q, h, level, p in torch.cartesian_prod(*map(torch.arange, (batch, queries, heads, levels, points))).tolist():
        rows, columns = case.shapes[level].tolist()
        x, y = case.locations[b, q, h, level, p].double().tolist()
        px, py = x * columns - 0.5, y * rows - 0.5
        if not (-1 < px < columns and -1 < py < rows):
            continue
        for i in (0, 1):
            for j in (0, 1):
                row, column = int(py // 1) + i, int(px // 1) + j
                if 0 <= row < rows and 0 <= column < columns:
                    share = (1 - abs(py - row)) * (1 - abs(px - column)) * case.weights[b, q, h, level, p].double()
                    out[b, q, h] += share * value[b, int(case.starts[level]) + row * columns + column, h]
    return out.flatten(2)
