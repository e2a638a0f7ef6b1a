"""Which features of a tower a plain decoder reads, and on which grid."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation import ImageTower
from frozenmm.structures import TowerFeatures

Grid = tuple[int, int]


class TapReader:
    """Reads taps: token sequences of a ViT's blocks, or maps of any tower brought to one grid.

    Finer maps are folded into it (every value becomes a channel), coarser ones resized.

    Args:
        tower: keeps the pipeline's resolution; its own `taps` must hold the blocks.
        taps: blocks, counted from 0, or names of maps.
        stride: pixels between neighbouring cells; a ViT's blocks have its patch size.

    Raises:
        UserError: no taps or both kinds, blocks that the tower does not keep, or a stride that does not fit.
    """

    def __init__(self, tower: ImageTower, taps: Sequence[int | str], stride: int | None = None) -> None:
        self.blocks = [tap for tap in taps if isinstance(tap, int)]
        self.maps = [tap for tap in taps if isinstance(tap, str)]
        if bool(self.blocks) == bool(self.maps):
            raise UserError(f'taps are either blocks of a ViT or names of maps, at least one; got {list(taps)}')
        lacking = [name for name in self.maps if name not in tower.channels]
        lacking += [str(block) for block in self.blocks if block not in (tower.taps or ())]
        if lacking:
            raise UserError(f'{tower.name} gives the maps {list(tower.channels)} and taps of the blocks '
                            f'{list(tower.taps or ())}, but the decoder needs {lacking}; name them in the tower\'s '
                            'out_maps or taps')
        patch = tower.input.patch
        self.stride = (patch if self.blocks else 16) if stride is None else stride
        if (self.blocks and self.stride != patch) or patch % self.stride:
            raise UserError(f'stride={self.stride} does not fit {tower.name}: blocks have its patch size of {patch} '
                            'pixels, maps may be read at any stride that divides it')
        self.folds = [max(1, self.stride // tower.strides[name]) for name in self.maps]
        self.in_channels = [tower.tap_channels or 0] * len(self.blocks) + [
            tower.channels[name] * fold**2 for name, fold in zip(self.maps, self.folds)]

    def __call__(self, features: TowerFeatures, canvas: Grid) -> tuple[list[Tensor], Grid]:
        """The taps (B, P + rows * columns, C_i) of a batch whose maps cover `canvas` (height, width), and the grid."""
        grid = (canvas[0] // self.stride, canvas[1] // self.stride)
        if self.blocks:
            return [features.taps[block] for block in self.blocks], grid
        return [resized_tokens(features.map(name), grid, fold) for name, fold in zip(self.maps, self.folds)], grid


def resized_tokens(feature_map: Tensor, grid: Grid, fold: int = 1) -> Tensor:
    """A map as a tap without prefix tokens.

    Args:
        feature_map: (B, C, h, w).
        grid: rows and columns.
        fold: a map that is this many times finer gives all its values, as channels; nothing is averaged away.

    Returns:
        (B, rows * columns, C * fold ** 2); without folding, resized bilinearly.
    """
    if fold > 1:
        feature_map = F.pixel_unshuffle(feature_map, fold)
    if feature_map.shape[-2:] != grid:
        feature_map = F.interpolate(feature_map, grid, mode='bilinear', align_corners=False)
    return feature_map.flatten(2).transpose(1, 2)
