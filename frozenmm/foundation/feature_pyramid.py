"""A light trainable pyramid on frozen maps, for networks that have one stride only.

Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (2022), section 3, the simple
feature pyramid: every level is made from the last map by transposed convolution or pooling. Ours differs in two points:
maps are projected to the pyramid's width before they are enlarged, which costs a fraction, and a level may lie at any
stride (a ViT with patches of 14 pixels has none of the usual ones), because levels are resampled to the image's grid.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.image_grid import grid_size, to_image_grid


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, h, w), each position by itself, so padding does not leak."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w), normalised over C."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PyramidLevel(nn.Module):
    """One level: project, enlarge, lay on the image's grid, smooth.

    Args:
        in_channels: width of the frozen map.
        channels: width of the level.
        source_stride: stride of the frozen map in pixels.
        stride: stride of the level in pixels.
    """

    def __init__(self, in_channels: int, channels: int, *, source_stride: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        steps = round(math.log2(source_stride / stride))
        self.reached_stride = source_stride / 2**steps
        self.halvings = max(0, -steps)
        self.project = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), ChannelNorm(channels))
        doubling = [(nn.ConvTranspose2d(channels, channels, 2, stride=2), ChannelNorm(channels), nn.GELU())
                    for _ in range(max(0, steps))]
        self.enlarge = nn.Sequential(*(layer for layers in doubling for layer in layers))
        self.smooth = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), ChannelNorm(channels))

    def forward(self, feature_map: Tensor, region: Tensor, image_size: tuple[int, int], *, aligned: bool) -> Tensor:
        """The level on the grid of the image.

        Args:
            feature_map: (B, in_channels, h, w).
            region: (B, 4) xyxy, what the map shows of the image.
            image_size: height and width of the batch in pixels.
            aligned: the map starts at the image's corner and has exactly its nominal stride.

        Returns:
            (B, channels, ceil(H / stride), ceil(W / stride)).
        """
        x = self.enlarge(self.project(feature_map))
        size = grid_size(image_size, self.stride)
        if aligned and self.reached_stride == self.stride:
            for _ in range(self.halvings):
                x = F.max_pool2d(x, 2, ceil_mode=True)
            x = x[..., :size[0], :size[1]]
        else:
            x = to_image_grid(x, region, size, (self.stride, self.stride))
        return self.smooth(x)


class SimpleFeaturePyramid(nn.Module):
    """Levels at the given strides, each made from the frozen map whose stride is nearest.

    Args:
        in_channels: widths of the frozen maps.
        in_strides: their strides in pixels.
        strides: strides of the levels, rising.
        channels: width of all levels.

    Raises:
        UserError: strides that are empty, not positive or not rising; a width below 1.
    """

    def __init__(self, in_channels: Sequence[int], in_strides: Sequence[int], *, strides: Sequence[int],
                 channels: int) -> None:
        super().__init__()
        if not strides or min(strides) < 1 or list(strides) != sorted(set(strides)):
            raise UserError(f'the strides of a pyramid must be positive and rise, got {list(strides)}')
        if channels < 1:
            raise UserError(f'a pyramid needs a positive number of channels, got {channels}')
        self.sources = [_nearest(in_strides, stride) for stride in strides]
        self.levels = nn.ModuleList(
            PyramidLevel(in_channels[source], channels, source_stride=in_strides[source], stride=stride)
            for source, stride in zip(self.sources, strides))

    def forward(self, maps: Sequence[Tensor], region: Tensor, image_size: tuple[int, int], *,
                aligned: bool) -> tuple[Tensor, ...]:
        """All levels, finest first; see `PyramidLevel.forward`."""
        return tuple(level(maps[source], region, image_size, aligned=aligned)
                     for source, level in zip(self.sources, self.levels))


def _nearest(strides: Sequence[int], wanted: int) -> int:
    """Position of the stride nearest to the wanted one; of two, the finer, whose detail the coarser one lacks."""
    return min(range(len(strides)), key=lambda i: (abs(math.log2(strides[i] / wanted)), strides[i]))
