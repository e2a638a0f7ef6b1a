"""Decoders from fused patch tokens to a dense map."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.registry import MODELS


def _resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(features, size=size, mode='bilinear', align_corners=False)


@MODELS.register_module()
class FusionerDecoder(nn.Module):
    """Three doublings by convolution, instance norm, ReLU and resize, one more convolution, a last projection.

    Args:
        channels: width of the tokens and of the result.

    Source: Fusioner (Ma et al., BMVC 2022), decoder. All resizes are bilinear with `align_corners=False`, by size.
    """

    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Dense features.

        Args:
            features: (B, C, h, w) patch tokens on their grid.
            size: (height, width) of the result.

        Returns:
            (B, C, *size).
        """
        height, width = features.shape[-2:]
        for step, conv in enumerate(self.convs, start=1):
            features = F.relu(F.instance_norm(conv(features), eps=1e-5))
            if step < len(self.convs):
                features = _resize(features, (height * 2**step, width * 2**step))
        return _resize(self.projection(features), size)


@MODELS.register_module()
class LightFusionerDecoder(nn.Module):
    """A cheap decoder: one depthwise-separable convolution on the token grid, then the projection, then one resize.

    At a 16x16 grid and width 512 it needs under 1 % of the multiplications of `FusionerDecoder`, whose convolutions run
    up to eight times the grid. Not part of the paper.

    Args:
        channels: width of the tokens and of the result.
        convolution: False leaves projection and resize only; with `num_layers=0` in the fusion, the head is then a
            linear projection of tokens and names into one space.
    """

    def __init__(self, channels: int = 512, *, convolution: bool = True) -> None:
        super().__init__()
        self.convolution = convolution
        if convolution:
            self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            self.pointwise = nn.Conv2d(channels, channels, 1)
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, C, h, w) patch tokens on their grid to (B, C, *size)."""
        if self.convolution:
            features = features + F.relu(F.instance_norm(self.pointwise(self.depthwise(features)), eps=1e-5))
        return _resize(self.projection(features), size)
