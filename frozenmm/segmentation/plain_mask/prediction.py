"""Masks of queries: an embedding of each query times upscaled patches."""
from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.segmentation.mask2former.mask_factors import MaskFactors


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class UpscaleBlock(nn.Module):
    """Twice the resolution: transposed convolution, GELU, depthwise 3x3, norm over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = ChannelNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, 2h, 2w)."""
        return self.norm(self.smooth(F.gelu(self.enlarge(x))))


class MaskPrediction(nn.Module):
    """Mask factors from normed queries and patches.

    Args:
        channels: width of queries and patches.
        stride: pixels between neighbouring patches; the masks have a stride of about 4 (a patch of 14 gives 7).
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Linear(channels, channels), nn.GELU()]
        self.mask_embed = nn.Sequential(*layers, nn.Linear(channels, channels))
        self.upscale = nn.Sequential(*(UpscaleBlock(channels) for _ in range(max(1, int(math.log2(stride)) - 2))))

    def forward(self, queries: Tensor, patches: Tensor, grid: tuple[int, int]) -> MaskFactors:
        """Factors of the masks.

        Args:
            queries: (B, Q, C).
            patches: (B, rows * columns, C).
            grid: rows and columns.
        """
        return MaskFactors(self.mask_embed(queries), self.upscale(patches.transpose(1, 2).unflatten(2, grid)))
