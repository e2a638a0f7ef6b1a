"""The warp's weighted loss with its gradient written out: what `warp.py` defines, several times as fast.

Only pixels that land in a reference are sampled, colour and depth are looked up together, and nothing of the size of
the maps is made per pair. Sampling never reaches the edge of a map, because pixels near it are invalid (`BORDER`).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frozenmm.reconstruction.cameras import MIN_DEPTH, pixel_grid
from frozenmm.reconstruction.pair_sampling import PairDraw
from frozenmm.reconstruction.warp import BORDER, normalise_pixels, sample

SMALLEST_SIDE = 24
"""Below it a valid pixel could need a neighbour outside the map."""


@dataclass
class WarpTables:
    """What a clip's warps look up.

    Attributes:
        size: (height, width).
        looked_up: (F * H * W, 4) float32: colour, and room for depth.
        own_colour: (F * H * W, 3) float32, every pixel's colour at its own sampling position.
        grid: (H * W, 3) float64 homogeneous pixels.
        compat: the official sampling positions.
    """

    size: tuple[int, int]
    looked_up: Tensor
    own_colour: Tensor
    grid: Tensor
    compat: bool

    @classmethod
    def of(cls, images: Tensor, *, compat: bool) -> WarpTables:
        """Tables of images (F, 3, H, W) in 0..1."""
        size = (int(images.shape[2]), int(images.shape[3]))
        grid = pixel_grid(*size, device=images.device)
        own = sample(images, normalise_pixels(grid[:, :2], size, compat=compat).expand(len(images), -1, -1))
        looked_up = torch.cat((images, torch.zeros_like(images[:, :1])), 1).flatten(2).mT.flatten(0, 1)
        return cls(size, looked_up.contiguous(), own.mT.flatten(0, 1).contiguous(), grid, compat)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the photometric and the geometric mean, and the quantile from which values are left out."""

    photometric: float
    geometric: float
    trim: float | None


class WarpLoss(torch.autograd.Function):
    """Weighted sum of both means (scalar), and the two means themselves (2, ) without gradient.

    Inputs: depth (F, H, W) float32, matrices (P, 3, 3) and shifts (P, 3) float64 that take z (u, v, 1) of the target to
    the reference's homogeneous pixel, tables, draw, weights.
    """

    @staticmethod
    def forward(ctx: object, depth: Tensor, matrices: Tensor, shifts: Tensor, tables: WarpTables, draw: PairDraw,
                weights: LossWeights) -> tuple[Tensor, Tensor]:
        """Loss and gradient at once, as they share everything."""
        with torch.no_grad():
            tables.looked_up[:, 3] = depth.reshape(-1)
            seen = _look(depth, matrices, shifts, tables, draw)
            means, by_colour, by_seen_depth, by_z = _loss(seen, weights)
            gradients = _back(seen, by_colour, by_seen_depth, by_z, depth, matrices, tables, draw)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(means)
        return means[0] * weights.photometric + means[1] * weights.geometric, means

    @staticmethod
    def backward(ctx: object, gradient: Tensor, _: Tensor) -> tuple:
        """The kept gradient times that of the sum."""
        by_depth, by_matrix, by_shift = ctx.saved_tensors
        return (gradient.to(by_depth) * by_depth, gradient * by_matrix, gradient * by_shift, None, None, None)


@dataclass
class _Seen:
    """The V pixels that land in their reference: places in (P, N), and what is there."""

    place: Tensor
    from_target: Tensor
    corner: Tensor
    share: Tensor
    z_target: Tensor
    inverse: Tensor
    pixel: Tensor
    z: Tensor
    in_front: Tensor
    values: Tensor
    by_u: Tensor
    by_v: Tensor
    own: Tensor
    valid: Tensor


def _look(depth: Tensor, matrices: Tensor, shifts: Tensor, tables: WarpTables, draw: PairDraw) -> _Seen:
    height, width = tables.size
    from_target = (draw.targets[:, None] * (height * width) + draw.pixels).reshape(-1)
    z_target = depth.reshape(-1)[from_target].double()
    image = (matrices @ tables.grid[draw.pixels].T) * z_target.view(len(shifts), 1, -1) + shifts[:, :, None]
    z = image[:, 2].clamp(min=MIN_DEPTH)
    inverse = 1 / z
    u, v = image[:, 0] * inverse, image[:, 1] * inverse
    sides = (width - 1, height - 1) if tables.compat else (width, height)
    offset = 0.0 if tables.compat else 0.5
    inside = (z != shifts[:, 2:])
    for value, side in ((u, sides[0]), (v, sides[1])):
        inside &= (2 * (value + offset) / side - 1).abs() <= BORDER
    place = inside.reshape(-1).nonzero()[:, 0]
    pixel = torch.stack((u.reshape(-1)[place], v.reshape(-1)[place]), 1)
    spot = pixel * pixel.new_tensor([width / sides[0], height / sides[1]]) - (0.5 if tables.compat else 0.0)
    low = spot.floor()
    share = (spot - low).float()
    low = low.long()
    pair = torch.div(place, draw.pixels.numel(), rounding_mode='floor')
    corner = draw.references[pair] * (height * width) + low[:, 1] * width + low[:, 0]
    table = tables.looked_up
    c00, c01, c10, c11 = table[corner], table[corner + 1], table[corner + width], table[corner + width + 1]
    right, down = share[:, :1], share[:, 1:]
    top, bottom = torch.lerp(c00, c01, right), torch.lerp(c10, c11, right)
    values = torch.lerp(top, bottom, down)
    chosen = from_target[place]
    return _Seen(place, chosen, corner, share, z_target, inverse.reshape(-1)[place], pixel, z.reshape(-1)[place],
                 image[:, 2].reshape(-1)[place] >= MIN_DEPTH, values, torch.lerp(c01 - c00, c11 - c10, down),
                 bottom - top, tables.own_colour[chosen], (values[:, 3] != 0) & (values[:, :3].sum(1) != 0))


def _loss(seen: _Seen, weights: LossWeights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means (2, ) and derivatives by the sampled colour (V, 3), the sampled depth (V, ) and the projected z (V, )."""
    difference = seen.values[:, :3] - seen.own
    photometric = difference.abs().mean(1)
    m = seen.values[:, 3].double()
    total = m + seen.z
    geometric = (m - seen.z).abs() / total
    means, factors = [], []
    for value, weight in ((photometric, weights.photometric), (geometric, weights.geometric)):
        kept = _kept(value, seen.valid, weights.trim)
        count = kept.sum().clamp(min=1)
        means.append((value * kept).sum().double() / count)
        factors.append(kept * (weight / count))
    by_colour = difference.sign() * (factors[0] / 3).float()[:, None]
    slope = (m - seen.z).sign() * 2 / total.square() * factors[1]
    return torch.stack(means), by_colour, slope * seen.z, -slope * m


def _kept(values: Tensor, valid: Tensor, trim: float | None) -> Tensor:
    """Bool (V, ): valid, and strictly below the linearly interpolated quantile where that leaves any."""
    chosen = values[valid].numpy()
    if trim is None or not len(chosen):
        return valid
    place = trim * (len(chosen) - 1)
    low, high = int(place), min(int(place) + 1, len(chosen) - 1)
    ordered = np.partition(chosen, (low, high))
    kept = valid & (values < float(ordered[low] + (ordered[high] - ordered[low]) * (place - low)))
    return kept if bool(kept.any()) else valid


def _back(seen: _Seen, by_colour: Tensor, by_seen_depth: Tensor, by_z: Tensor, depth: Tensor, matrices: Tensor,
          tables: WarpTables, draw: PairDraw) -> tuple[Tensor, Tensor, Tensor]:
    height, width = tables.size
    by_value = torch.cat((by_colour, by_seen_depth.float()[:, None]), 1)
    by_spot = torch.stack(((by_value * seen.by_u).sum(1), (by_value * seen.by_v).sum(1)), 1).double()
    stretch = (width / (width - 1), height / (height - 1)) if tables.compat else (1.0, 1.0)
    across = by_spot * by_spot.new_tensor(stretch) * seen.inverse[:, None]
    along = (by_z - (across * seen.pixel).sum(1)) * seen.in_front
    pairs, count = len(matrices), draw.pixels.numel()
    by_image = matrices.new_zeros(3, pairs * count)
    for row, value in zip(by_image, (across[:, 0], across[:, 1], along)):
        row[seen.place] = value
    by_image = by_image.view(3, pairs, count).transpose(0, 1)  # (P, 3, N)
    uv, z = tables.grid[draw.pixels], seen.z_target.view(pairs, 1, count)
    by_matrix = (by_image * z) @ uv
    by_target = (by_image * (matrices @ uv.T)).sum(1).reshape(-1).float()
    right, down = seen.share.T
    own, gradient = by_seen_depth.float(), torch.zeros(depth.numel(), dtype=torch.float32)
    gradient.index_add_(0, (draw.targets[:, None] * (height * width) + draw.pixels).reshape(-1), by_target)
    for offset, share in ((0, (1 - right) * (1 - down)), (1, right * (1 - down)), (width, (1 - right) * down),
                          (width + 1, right * down)):
        gradient.index_add_(0, seen.corner + offset, own * share)
    return gradient.view_as(depth), by_matrix, by_image.sum(2)
