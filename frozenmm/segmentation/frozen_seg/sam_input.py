"""What SAM sees of a pipeline's batch: SAM's normalisation, zero padding, then a stretch to its square input."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.structures import ImageStats

SAM_STATS = ImageStats((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""SAM's channel means and deviations, RGB, pixels in 0..255."""


def normalise_and_pad(images: Tensor, sizes: list[tuple[int, int]], stats: ImageStats, *, divisor: int = 32,
                      target: ImageStats = SAM_STATS) -> Tensor:
    """A padded batch in another normalisation.

    Args:
        images: (B, 3, H, W) float, normalised by `stats`, padded at the bottom and right with anything.
        sizes: height and width of each image without padding.
        stats: normalisation of `images`.
        divisor: the result's sides are multiples of this.
        target: normalisation of the result.

    Returns:
        (B, 3, H', W'), zero in the padding.
    """
    mean, std = stats.tensors(images)
    pixels = images * std + mean
    if stats.channel_order != target.channel_order:
        pixels = pixels.flip(1)
    target_mean, target_std = target.tensors(images)
    valid = torch.tensor(sizes, device=images.device)
    rows = torch.arange(images.shape[2], device=images.device) < valid[:, :1]
    columns = torch.arange(images.shape[3], device=images.device) < valid[:, 1:]
    shown = rows[:, None, :, None] & columns[:, None, None, :]
    normalised = torch.where(shown, (pixels - target_mean) / target_std, 0)
    return F.pad(normalised, (0, -images.shape[3] % divisor, 0, -images.shape[2] % divisor))


def stretch(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The whole padded batch stretched bilinearly, without antialias and without keeping the aspect ratio.

    Parity: this is not SAM's own preprocessing; FrozenSeg's models were evaluated so, and SAM's grid then covers
    exactly what CLIP's maps cover, padding included.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode='bilinear', align_corners=False)
