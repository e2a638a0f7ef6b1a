"""Where masks are compared in training: random points, or mostly those at which a prediction is least certain."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps at points.

    Args:
        maps: (B, C, H, W).
        points: (B, P, 2), x and y in 0..1 of the map (`align_corners=False`, zeros outside).

    Returns:
        (B, C, P).
    """
    grid = 2 * points[:, None] - 1
    return F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)[:, :, 0]


class PointSampler:
    """Chooses the points of the losses.

    Source: Mask2Former section 3.3; PointRend for the uncertain points.

    Args:
        num_points: P, for matching and for the losses.
        oversample_ratio: candidates per point from which the uncertain ones are taken.
        importance_ratio: share of the points that are uncertain ones; the rest is uniform.
        generator: source of randomness; torch's global one by default.
    """

    def __init__(self, num_points: int = 12544, *, oversample_ratio: float = 3.0, importance_ratio: float = 0.75,
                 generator: torch.Generator | None = None) -> None:
        if num_points < 1 or oversample_ratio < 1 or not 0 <= importance_ratio <= 1:
            raise UserError('points need num_points >= 1, oversample_ratio >= 1 and importance_ratio in 0..1, got '
                            f'{num_points}, {oversample_ratio} and {importance_ratio}')
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_ratio = importance_ratio
        self.generator = generator

    def matching(self, layer: int, count: int, device: torch.device) -> Tensor:
        """Points (count, P, 2) for the matching of `count` images in one prediction layer."""
        return self._uniform(count, self.num_points, device)

    @torch.no_grad()
    def loss(self, layer: int, mask_logits: Tensor) -> Tensor:
        """Points (N, P, 2) for the losses of N matched masks (N, h, w) in one prediction layer."""
        count, device = len(mask_logits), mask_logits.device
        uncertain = int(self.importance_ratio * self.num_points)
        candidates = self._uniform(count, int(self.num_points * self.oversample_ratio), device)
        certainty = sample_points(mask_logits[:, None].float(), candidates)[:, 0].abs()
        chosen = certainty.topk(uncertain, dim=1, largest=False).indices
        chosen = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
        return torch.cat([chosen, self._uniform(count, self.num_points - uncertain, device)], 1)

    def _uniform(self, count: int, points: int, device: torch.device) -> Tensor:
        return torch.rand(count, points, 2, device=device, generator=self.generator)
