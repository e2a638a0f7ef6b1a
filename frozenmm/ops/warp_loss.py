"""Colour and depth residuals of pixels carried from frame to frame, with their gradients."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .mask_library import define_op

BORDER = 0.95
"""Greatest normalised coordinate of a pixel that counts."""
MIN_DEPTH = 1e-3
"""Least depth that a point is divided by."""
SMALLEST_SIDE = 24
"""Of a map in pixels: below it a pixel that counts could need a neighbour outside the map."""


def warp_loss(colours: Tensor, own_colours: Tensor, depth: Tensor, invalid: Tensor | None, matrices: Tensor,
              shifts: Tensor, targets: Tensor, references: Tensor, pixels: Tensor, *, photometric: float,
              geometric: float, trim: float | None, stretched: bool = False) -> tuple[Tensor, Tensor]:
    """Weighted sum of the mean colour and the mean depth residual of N pixels of P pairs of frames.

    A pixel (u, v) of the target with depth z lands at (x, y, w) = A z (u, v, 1) + t of the reference. It counts if both
    normalised coordinates are at most 0.95 in size, and depth and colour sampled there (bilinear) are not 0. The colour
    residual is the mean absolute difference over the channels, that of depth |m - w| / (m + w) with the sampled m.

    Args:
        colours: (F, H, W, 4) float32, three channels and one that is not read.
        own_colours: (F, H, W, 4) float32, what pixels of the target are compared as.
        depth: (F, H, W) float32, at least 24 pixels a side.
        invalid: (F, H, W) bool, pixels that count in neither frame, or None.
        matrices: (P, 3, 3) float64, A of every pair.
        shifts: (P, 3) float64, t of every pair.
        targets: (P, ) int64 frames.
        references: (P, ) int64 frames.
        pixels: (N, ) int64 flat indexes row * W + column, shared by the pairs.
        photometric: weight of the colour term.
        geometric: weight of the depth term.
        trim: residuals at or above this quantile of all of them (linearly interpolated, each term by itself) are left
            out, unless that leaves none; None keeps all.
        stretched: positions normalised by side - 1 but sampled as if by side, as the official code does.

    Returns:
        The weighted sum (scalar float64), with gradient to depth, matrices and shifts, and the two means (2, ) float64.

    Raises:
        RuntimeError, ValueError: shapes or types that do not fit, or indexes out of range.

    Source: FrozenRecon, ICCV 2023, sections 3.3 and 4.
    """
    _check(colours, own_colours, depth, matrices, shifts, targets, references, pixels)
    return _WarpLoss.apply(depth, matrices, shifts, (colours, own_colours, invalid, targets, references, pixels),
                           (photometric, geometric, trim, stretched))


def _check(colours: Tensor, own_colours: Tensor, depth: Tensor, matrices: Tensor, shifts: Tensor, targets: Tensor,
           references: Tensor, pixels: Tensor) -> None:
    pairs = (len(targets), )
    shapes = (('colours', colours, (*depth.shape, 4)), ('own_colours', own_colours, (*depth.shape, 4)),
              ('matrices', matrices, (*pairs, 3, 3)), ('shifts', shifts, (*pairs, 3)),
              ('references', references, pairs), ('targets', targets, pairs))
    for name, value, wanted in shapes:
        if tuple(value.shape) != wanted:
            raise ValueError(f'warp_loss: {name} must have shape {wanted} for depth {tuple(depth.shape)} and '
                             f'{pairs[0]} pairs, got {tuple(value.shape)}')
    if depth.ndim != 3 or min(depth.shape[1:]) < SMALLEST_SIDE or pixels.ndim != 1:
        raise ValueError(f'warp_loss: expected depth (F, H, W) of at least {SMALLEST_SIDE} pixels a side and pixels '
                         f'(N, ), got {tuple(depth.shape)} and {tuple(pixels.shape)}')


class _WarpLoss(torch.autograd.Function):
    """The operator finds loss and gradient at once, as they share everything; backward scales what it kept."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, matrices: Tensor, shifts: Tensor, tables: tuple,
                settings: tuple[float, float, float | None, bool]) -> tuple[Tensor, Tensor]:
        colours, own_colours, invalid, targets, references, pixels = tables
        means, *gradients = torch.ops.frozenmm.warp_loss(colours, own_colours, depth, invalid, matrices, shifts,
                                                         targets, references, pixels, *settings)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(means)
        return means[0] * settings[0] + means[1] * settings[1], means

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple:
        by_depth, by_matrix, by_shift = ctx.saved_tensors
        return gradient.to(by_depth) * by_depth, gradient * by_matrix, gradient * by_shift, None, None


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


def loss_definition(colours: Tensor, own_colours: Tensor, depth: Tensor, invalid: Tensor | None, matrices: Tensor,
                    shifts: Tensor, targets: Tensor, references: Tensor, pixels: Tensor, photometric: float,
                    geometric: float, trim: float | None, stretched: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Plain torch path of `frozenmm::warp_loss`: means (2, ), gradients by depth, matrices and shifts."""
    height, width = depth.shape[1:]
    grid = torch.stack((pixels % width, pixels // width, torch.ones_like(pixels)), 1).double()
    seen = _look(colours, own_colours, depth, invalid, matrices, shifts, targets, references, pixels, grid, stretched)
    difference = seen.values[:, :3] - seen.own
    m = seen.values[:, 3].double()
    total = m + seen.z
    means, factors = [], []
    for value, weight in ((difference.abs().mean(1), photometric), ((m - seen.z).abs() / total, geometric)):
        kept = _kept(value, seen.valid, trim)
        count = kept.sum().clamp(min=1)
        means.append((value * kept).sum().double() / count)
        factors.append(kept * (weight / count))
    slope = (m - seen.z).sign() * 2 / total.square() * factors[1]
    by_value = torch.cat((difference.sign() * (factors[0] / 3).float()[:, None], (slope * seen.z).float()[:, None]), 1)
    by_spot = torch.stack(((by_value * seen.by_u).sum(1), (by_value * seen.by_v).sum(1)), 1).double()
    stretch = (width / (width - 1), height / (height - 1)) if stretched else (1.0, 1.0)
    across = by_spot * by_spot.new_tensor(stretch) * seen.inverse[:, None]
    along = (-slope * m - (across * seen.pixel).sum(1)) * seen.in_front
    by_image = matrices.new_zeros(3, len(targets) * len(pixels))
    by_image[:, seen.place] = torch.stack((across[:, 0], across[:, 1], along))
    by_image = by_image.view(3, len(targets), len(pixels)).transpose(0, 1)  # (P, 3, N)
    by_matrix = (by_image * seen.z_target.view(len(targets), 1, -1)) @ grid
    by_depth = _to_depth(seen, by_value[:, 3], (by_image * (matrices @ grid.T)).sum(1).reshape(-1).float(), depth)
    return torch.stack(means), by_depth, by_matrix, by_image.sum(2)


def _look(colours: Tensor, own_colours: Tensor, depth: Tensor, invalid: Tensor | None, matrices: Tensor,
          shifts: Tensor, targets: Tensor, references: Tensor, pixels: Tensor, grid: Tensor, stretched: bool) -> _Seen:
    height, width = depth.shape[1:]
    from_target = (targets[:, None] * (height * width) + pixels).reshape(-1)
    z_target = depth.reshape(-1)[from_target].double()
    image = (matrices @ grid.T) * z_target.view(len(shifts), 1, -1) + shifts[:, :, None]
    z = image[:, 2].clamp(min=MIN_DEPTH)
    inverse = 1 / z
    u, v = image[:, 0] * inverse, image[:, 1] * inverse
    sides = (width - 1, height - 1) if stretched else (width, height)
    offset = 0.0 if stretched else 0.5
    inside = z != shifts[:, 2:]
    for value, side in ((u, sides[0]), (v, sides[1])):
        inside &= (2 * (value + offset) / side - 1).abs() <= BORDER
    place = inside.reshape(-1).nonzero()[:, 0]
    pixel = torch.stack((u.reshape(-1)[place], v.reshape(-1)[place]), 1)
    spot = pixel * pixel.new_tensor([width / sides[0], height / sides[1]]) - (0.5 if stretched else 0.0)
    low = spot.floor()
    share = (spot - low).float()
    chosen, start = from_target[place], references[place // max(len(pixels), 1)] * (height * width)
    corner = start + low[:, 1].long() * width + low[:, 0].long()
    table = torch.cat((colours[..., :3], depth[..., None]), -1).reshape(-1, 4)
    c00, c01, c10, c11 = table[corner], table[corner + 1], table[corner + width], table[corner + width + 1]
    right, down = share[:, :1], share[:, 1:]
    top, bottom = torch.lerp(c00, c01, right), torch.lerp(c10, c11, right)
    values = torch.lerp(top, bottom, down)
    valid = (values[:, 3] != 0) & (values[:, :3].sum(1) != 0)
    if invalid is not None:
        nearest = start + spot[:, 1].round().long() * width + spot[:, 0].round().long()
        valid &= ~(invalid.reshape(-1)[chosen] | invalid.reshape(-1)[nearest])
    return _Seen(place, from_target, corner, share, z_target, inverse.reshape(-1)[place], pixel, z.reshape(-1)[place],
                 image[:, 2].reshape(-1)[place] >= MIN_DEPTH, values, torch.lerp(c01 - c00, c11 - c10, down),
                 bottom - top, own_colours.reshape(-1, 4)[chosen, :3], valid)


def _kept(values: Tensor, valid: Tensor, trim: float | None) -> Tensor:
    """Bool (V, ): valid, and strictly below the linearly interpolated quantile where that leaves any."""
    chosen = values[valid]
    if trim is None or not len(chosen):
        return valid
    place = trim * (len(chosen) - 1)
    low = int(place)
    first = chosen.kthvalue(low + 1).values.double()
    second = chosen.kthvalue(min(low + 2, len(chosen))).values.double()
    kept = valid & (values.double() < first + (second - first) * (place - low))
    return kept if bool(kept.any()) else valid


def _to_depth(seen: _Seen, by_seen: Tensor, by_target: Tensor, depth: Tensor) -> Tensor:
    right, down = seen.share.T
    width = depth.shape[2]
    gradient = torch.zeros_like(depth).reshape(-1)
    gradient.index_add_(0, seen.from_target, by_target)
    for offset, share in ((0, (1 - right) * (1 - down)), (1, right * (1 - down)), (width, (1 - right) * down),
                          (width + 1, right * down)):
        gradient.index_add_(0, seen.corner + offset, by_seen * share)
    return gradient.view_as(depth)


def _fake(colours: Tensor, own_colours: Tensor, depth: Tensor, invalid: Tensor | None, matrices: Tensor,
          shifts: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (matrices.new_empty(2), torch.empty_like(depth), torch.empty_like(matrices), torch.empty_like(shifts))


define_op('warp_loss(Tensor colours, Tensor own_colours, Tensor depth, Tensor? invalid, Tensor matrices, '
          'Tensor shifts, Tensor targets, Tensor references, Tensor pixels, float photometric, float geometric, '
          'float? trim, bool stretched) -> (Tensor, Tensor, Tensor, Tensor)', loss_definition, _fake)
