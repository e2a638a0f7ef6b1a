"""Prompts drawn from the regions of an image, and how well masks answer them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.mask_prompters import BOTTOM_RIGHT, INSIDE, OUTSIDE, PADDING, TOP_LEFT

POINT, BOX, TWO_POINTS = 0, 1, 2
MIN_AREA = 60
"""Smallest region in pixels that is asked for."""


@dataclass
class Prompts:
    """Prompts for the regions of one image.

    Attributes:
        points: (P, 2, 2) x and y as shares of width and height.
        labels: (P, 2) int64, see `frozenmm.foundation.mask_prompters.PADDING`.
        regions: (P,) int64, the region that each prompt asks for.
        kinds: (P,) int64, `POINT`, `BOX` or `TWO_POINTS`.
    """

    points: Tensor
    labels: Tensor
    regions: Tensor
    kinds: Tensor


def draw_prompts(regions: Tensor, count: int, *, shares: Sequence[float] = (0.5, 0.3, 0.2),
                 generator: torch.Generator | None = None) -> Prompts:
    """Random prompts, on the CPU.

    A box is that of its region, its sides moved by a tenth of its size at random, at most 20 pixels (the jitter of
    SAM's training, appendix A). Of two points the second is another one inside, or one outside.

    Args:
        regions: (H, W) integers, the region of each pixel.
        count: P.
        shares: how frequent points, boxes and two points are.
        generator: source of randomness, on the CPU.

    Raises:
        UserError: no region has `MIN_AREA` pixels.
    """
    regions = regions.cpu().long()
    large = (regions.flatten().bincount() >= MIN_AREA).nonzero()[:, 0]
    if len(large) == 0:
        raise UserError(f'no region of the image has {MIN_AREA} pixels, so none can be asked for')
    chosen = large[torch.randint(len(large), (count,), generator=generator)]
    kinds = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)
    pixels = {int(number): (regions == number).nonzero() for number in chosen.unique()}
    drawn = [_draw(regions, pixels[int(number)], int(kind), generator) for number, kind in zip(chosen, kinds)]
    points = torch.stack([pair for pair, _ in drawn]) / torch.tensor([regions.shape[1], regions.shape[0]])
    return Prompts(points, torch.tensor([labels for _, labels in drawn]), chosen, kinds)


def _draw(regions: Tensor, pixels: Tensor, kind: int,
          generator: torch.Generator | None) -> tuple[Tensor, tuple[int, int]]:
    """Two points (2, 2) in pixels and their labels, for the region whose pixels (N, 2: y and x) these are."""
    if kind == BOX:
        low, high = pixels.amin(0).flip(0).float(), pixels.amax(0).flip(0) + 1.0
        jitter = (torch.randn(2, 2, generator=generator) * 0.1 * (high - low)).clamp(-20, 20)
        size = torch.tensor([regions.shape[1], regions.shape[0]])
        corners = torch.minimum((torch.stack([low, high]) + jitter).clamp(min=0), size)
        return torch.stack([corners.amin(0), corners.amax(0)]), (TOP_LEFT, BOTTOM_RIGHT)
    first = _pick(pixels, generator)
    if kind == POINT:
        return torch.stack([first, torch.zeros(2)]), (INSIDE, PADDING)
    if torch.rand((), generator=generator) < 0.5:
        return torch.stack([first, _pick(pixels, generator)]), (INSIDE, INSIDE)
    outside = (regions != regions[tuple(pixels[0])]).nonzero()
    if len(outside) == 0:
        return torch.stack([first, torch.zeros(2)]), (INSIDE, PADDING)
    return torch.stack([first, _pick(outside, generator)]), (INSIDE, OUTSIDE)


def _pick(pixels: Tensor, generator: torch.Generator | None) -> Tensor:
    """The centre (x, y) of a random pixel of (N, 2)."""
    return pixels[torch.randint(len(pixels), (), generator=generator)].flip(0) + 0.5


def region_masks(regions: Tensor, prompts: Prompts, size: tuple[int, int]) -> Tensor:
    """(P, h, w) bool at a size: where the region that a prompt asks for fills more than half of a cell."""
    shown, where = prompts.regions.unique(return_inverse=True)
    masks = (regions[None].long() == shown.to(regions.device)[:, None, None]).float()
    if tuple(masks.shape[-2:]) != size:
        masks = F.interpolate(masks[None], size=size, mode='area')[0]
    return (masks > 0.5)[where.to(regions.device)]


def mask_iou(masks: Tensor, targets: Tensor) -> Tensor:
    """(...) intersection over union of bool masks (..., H, W); 0 where both are empty."""
    both, either = (masks & targets).sum((-2, -1)), (masks | targets).sum((-2, -1))
    return both / either.clamp(min=1)
