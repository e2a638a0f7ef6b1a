"""The levels of the deformable encoder as one sequence: detector levels first, frozen maps behind them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.ops.traced_attention import map_sizes


@dataclass
class Levels:
    """Feature levels of B images, flattened and joined; N is the number of cells of all levels.

    Attributes:
        features: (B, N, C).
        positions: (B, N, C), sine embedding plus the embedding of the level; batch size 1 if nothing is padded.
        mask: (B, N) bool, True at padding; None if nothing is padded.
        valid_ratios: (B, L, 2), valid part of the width and of the height.
        shapes: (height, width) of every level, on the host.
    """

    features: Tensor
    positions: Tensor
    mask: Tensor | None
    valid_ratios: Tensor
    shapes: list[tuple[int, int]]

    @property
    def spatial_shapes(self) -> Any:
        """(L, 2) int64 on the device of the features; while a model is exported the pairs, see `map_sizes`."""
        return map_sizes(self.shapes, self.features.device)

    @property
    def start_index(self) -> Any:
        """(L,) int64, the first cell of every level; None while a model is exported."""
        starts = [0]
        for height, width in self.shapes[:-1]:
            starts.append(starts[-1] + height * width)
        return None if torch.compiler.is_exporting() else torch.tensor(starts, device=self.features.device)

    def cells(self, levels: int) -> int:
        """Number of cells of the first levels."""
        return sum(height * width for height, width in self.shapes[:levels])

    def first(self, levels: int) -> Levels:
        """The first levels alone."""
        cells = self.cells(levels)
        return Levels(self.features[:, :cells], self.positions[:, :cells],
                      None if self.mask is None else self.mask[:, :cells], self.valid_ratios[:, :levels],
                      self.shapes[:levels])


def padding_masks(feature_maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]],
                  batch_size: tuple[int, int]) -> list[Tensor | None]:
    """Where each level shows padding.

    Args:
        feature_maps: (B, C, h, w) per level.
        sizes: (height, width) of every image without padding.
        batch_size: (height, width) of the padded batch.

    Returns:
        (B, h, w) bool per level, or None per level if no image is padded. Pixels are sampled at the nearest position.
    """
    if all(tuple(size) == tuple(batch_size) for size in sizes):
        return [None] * len(feature_maps)
    padding = feature_maps[0].new_ones((len(sizes), *batch_size), dtype=torch.float32)
    for index, (height, width) in enumerate(sizes):
        padding[index, :height, :width] = 0
    return [F.interpolate(padding[None], size=level.shape[-2:])[0].to(torch.bool) for level in feature_maps]


def level_positions(feature_maps: Sequence[Tensor], masks: Sequence[Tensor | None],
                    encoding: nn.Module) -> list[Tensor]:
    """Sine position embedding of every level, (B or 1, C, h, w), without the embedding of the level."""
    return [encoding(None, input=level[:1]) if mask is None else encoding(mask)
            for level, mask in zip(feature_maps, masks)]


def join_levels(feature_maps: Sequence[Tensor], masks: Sequence[Tensor | None], encoding: nn.Module,
                level_embed: Tensor) -> Levels:
    """Flatten and join levels.

    Args:
        feature_maps: (B, C, h, w) per level.
        masks: (B, h, w) bool per level, True at padding; None where nothing is padded.
        encoding: mmdet's sine position embedding.
        level_embed: (L, C), one row per level.
    """
    count = feature_maps[0].shape[0]
    positions = [position.flatten(2).transpose(1, 2) + level_embed[index]
                 for index, position in enumerate(level_positions(feature_maps, masks, encoding))]
    joined = None
    ratios = feature_maps[0].new_ones((count, len(feature_maps), 2))
    if any(mask is not None for mask in masks):
        positions = [position.expand(count, -1, -1) for position in positions]
        padding = [level.new_zeros((count, *level.shape[-2:]), dtype=torch.bool) if mask is None else mask
                   for level, mask in zip(feature_maps, masks)]
        ratios = torch.stack([_valid_ratio(mask) for mask in padding], 1)
        joined = torch.cat([mask.flatten(1) for mask in padding], 1)
    return Levels(features=torch.cat([level.flatten(2).transpose(1, 2) for level in feature_maps], 1),
                  positions=torch.cat(positions, 1),
                  mask=joined, valid_ratios=ratios,
                  shapes=[(level.shape[-2], level.shape[-1]) for level in feature_maps])


def _valid_ratio(mask: Tensor) -> Tensor:
    height, width = mask.shape[1:]
    return torch.stack([(~mask[:, 0]).sum(1) / width, (~mask[:, :, 0]).sum(1) / height], -1)

def set_levels(encoder: dict, decoder: dict, own: int, extra: int) -> None:
    """Write the numbers of levels into the attention configs; refuse those that contradict `num_feature_levels`."""
    for name, config, attention, levels in (('encoder', encoder, 'self_attn_cfg', own + extra),
                                            ('decoder', decoder, 'cross_attn_cfg', own)):
        attention = config['layer_cfg'][attention]
        if attention.get('num_levels', own) not in (own, levels):
            raise UserError(f'{name} attention has num_levels={attention["num_levels"]}, but num_feature_levels is '
                            f'{own}; leave num_levels out or make the two equal (frozen maps are added by themselves)')
        attention['num_levels'] = levels
