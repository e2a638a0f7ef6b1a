"""Frozen feature maps as extra levels of the deformable encoder."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation import ImageTower
from frozenmm.structures import TowerFeatures

NORMS = ('GN', 'LN')


class PatchLevel(nn.Module):
    """Projects one frozen map to the width of the encoder.

    Args:
        channels: width of the frozen map.
        embed_dims: width of the encoder.
        norm: `'GN'` (1x1 convolution + GroupNorm, DINO-coco) or `'LN'` (Linear + LayerNorm, the mmdet-2.x fork).
        groups: groups of the GroupNorm; must divide `embed_dims`.
    """

    def __init__(self, channels: int, embed_dims: int, *, norm: str = 'GN', groups: int = 32) -> None:
        super().__init__()
        if norm not in NORMS:
            raise UserError(f'the norm of a patch level must be one of {list(NORMS)}, got {norm!r}')
        if norm == 'GN' and embed_dims % groups:
            raise UserError(f'{groups} groups do not divide the {embed_dims} channels of the encoder; '
                            'set patch_groups to a divisor')
        # PyTorch's default initialisation, as in the official code, whose reset functions run before these exist
        self.projection = nn.Conv2d(channels, embed_dims, 1) if norm == 'GN' else nn.Linear(channels, embed_dims)
        self.norm = nn.GroupNorm(groups, embed_dims) if norm == 'GN' else nn.LayerNorm(embed_dims)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, embed_dims, h, w)."""
        if isinstance(self.projection, nn.Conv2d):
            return self.norm(self.projection(feature_map))
        return self.norm(self.projection(feature_map.movedim(1, -1))).movedim(-1, 1)


def patch_mask(tower: ImageTower, features: TowerFeatures, name: str) -> Tensor | None:
    """Cells of a frozen map that show no image.

    Args:
        tower: the tower that gave the features; its resize mode tells whether there can be padding.
        features: its features.
        name: the map.

    Returns:
        (B, h, w) bool, True where the cell begins in the tower's padding; None if the tower never pads.
    """
    if tower.resize_mode in ('center_crop', 'squash'):
        return None
    height, width = features.map(name).shape[-2:]
    stride = tower.strides[name]
    axes = [torch.arange(size, device=features.valid.device)[None] * stride >= features.valid[:, axis, None]
            for axis, size in enumerate((height, width))]
    return axes[0][:, :, None] | axes[1][:, None]
