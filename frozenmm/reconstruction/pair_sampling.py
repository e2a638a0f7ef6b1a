"""Which reference frame a target frame is compared with, and at which pixels (spec section 4)."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NEAR = 3
ANGLE = math.pi / 4
MAX_TARGETS = 50
PIXEL_SHARE = 0.25


@dataclass
class PairDraw:
    """Pairs and pixels of one iteration.

    Attributes:
        targets: (P, ) frame indexes.
        references: (P, ) frame indexes.
        pixels: (N, ) flat pixel indexes in ascending order, shared by all pairs.
    """

    targets: Tensor
    references: Tensor
    pixels: Tensor


def offset_probabilities(count: int, *, near: int = NEAR) -> Tensor:
    """Rows (count, 2 near + 1) over the offsets -near..near: uniform without 0.

    >>> offset_probabilities(1, near=1)
    tensor([[0.5000, 0.0000, 0.5000]])
    """
    row = torch.full((2 * near + 1, ), 1 / (2 * near))
    row[near] = 0
    return row.expand(count, -1).clone()


def angle_probabilities(angles: Tensor, targets: Tensor, *, near: int = NEAR, limit: float = ANGLE,
                        compat: bool = False) -> Tensor:
    """Rows (P, F) over all frames: half of the mass on near frames, half on far ones by their angle.

    Args:
        angles: (F, F) radians, entry [a, b] between frames a and b.
        targets: (P, ) frame indexes.
        near: frames up to this distance in time count as near.
        limit: angles above it get no mass; the mass peaks at half of it.
        compat: a frame counts as its own near frame, so that 1 pair in 14 compares a frame with itself.
    """
    angles = angles[targets].nan_to_num(0.0)
    angles = torch.where(angles > limit, torch.zeros_like(angles), angles)
    mass = (limit / 2 - (angles - limit / 2).abs()).clamp(min=0).sqrt()
    distance = (torch.arange(angles.shape[1], device=angles.device) - targets[:, None]).abs()
    mass = torch.where(distance == 0, torch.zeros_like(mass), mass)
    is_near = distance <= near if compat else (distance <= near) & (distance > 0)
    far = torch.where(is_near, torch.zeros_like(mass), mass)
    total, near_count = far.sum(1, keepdim=True), is_near.sum(1, keepdim=True).clamp(min=1)
    has_far = total > 0
    share = torch.where(has_far, 0.5, 1.0)
    far = torch.where(has_far, 0.5 * far / torch.where(has_far, total, torch.ones_like(total)), far)
    return torch.where(is_near, (share / near_count).to(far.dtype), far)


class PairSampler:
    """Random pairs and pixels, reproducible under the seed of the generator.

    Args:
        frames: number of frames, at least 2.
        size: (height, width) of the maps.
        generator: source of randomness, on the CPU.
        max_targets: at most so many targets per iteration.
        pixel_share: share of the pixels per iteration.
        compat: references outside the sequence are dropped with their target, and a frame may meet itself.

    Raises:
        ValueError: fewer than 2 frames.
    """

    def __init__(self, frames: int, size: tuple[int, int], *, generator: torch.Generator,
                 max_targets: int = MAX_TARGETS, pixel_share: float = PIXEL_SHARE, compat: bool = False) -> None:
        if frames < 2:
            raise ValueError(f'pairs need at least 2 frames, got {frames}')
        self.frames, self.pixels, self.generator = frames, size[0] * size[1], generator
        self.max_targets, self.pixel_share, self.compat = max_targets, pixel_share, compat

    def draw(self, angles: Tensor | None = None) -> PairDraw:
        """Pairs of one iteration: by offset without `angles`, by angle (F, F) with them."""
        targets = torch.randperm(self.frames, generator=self.generator)[:self.max_targets]
        if angles is None:
            references = self._near(targets)
        else:
            rows = angle_probabilities(angles.cpu(), targets, compat=self.compat)
            references = torch.multinomial(rows, 1, generator=self.generator)[:, 0]
        inside = (references >= 0) & (references < self.frames)
        chosen = torch.zeros(self.pixels, dtype=torch.bool)
        chosen[torch.randperm(self.pixels, generator=self.generator)[:int(self.pixels * self.pixel_share)]] = True
        return PairDraw(targets[inside], references[inside], chosen.nonzero()[:, 0])

    def _near(self, targets: Tensor) -> Tensor:
        rows = offset_probabilities(len(targets))
        if not self.compat:
            there = targets[:, None] + torch.arange(-NEAR, NEAR + 1)
            rows *= (there >= 0) & (there < self.frames)
        return targets + torch.multinomial(rows, 1, generator=self.generator)[:, 0] - NEAR
