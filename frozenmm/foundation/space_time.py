"""Attention over the frames of a clip, trained, inside a frozen image tower or behind its maps."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.inside_blocks import Hook, TowerWithParts, first_norm, transformer_blocks
from frozenmm.registry import MODELS


class TimeAttention(nn.Module):
    """What the frames of a clip say to each other at one place of the picture; 0 at the start.

    Args:
        width: C of the tokens.
        heads: of the attention; C is a multiple of it.
        frames: longest clip, each frame with a learned position.
    """

    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f'{heads} heads do not divide the width {width} of the tokens')
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.position = nn.Parameter(0.02 * torch.randn(frames, width))
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        """What to add to tokens (B * F, N, C) of B clips; exactly 0 where a clip has one frame.

        Raises:
            UserError: more frames than positions, or a batch that is no whole number of clips.
        """
        if frames == 1:
            return torch.zeros_like(tokens)
        if frames > len(self.position) or len(tokens) % frames:
            raise UserError(f'{len(tokens)} pictures are no clips of {frames} frames, of which at most '
                            f'{len(self.position)} have positions; set frames to the length of the clips')
        x = tokens.unflatten(0, (-1, frames)).transpose(1, 2)  # B, N, F, C
        x = self.norm(x) + self.position[:frames]
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(2, 3).flatten(3)
        return self.project(mixed).transpose(1, 2).flatten(0, 1)


@MODELS.register_module()
class SpaceTimeAdapter(TowerWithParts):
    """A frozen ViT for clips: before the attention in space, tokens hear the other frames at their place.

    As in the official code, a block computes s = x + A(x + T(x)) and then its feed-forward of s: the attention in space
    sees what the attention in time T adds, the residual does not. T is trained, A is frozen. Clips lie one after the
    other in the batch, `frames` pictures each; with one frame the output is the image tower's, bit for bit.

    Args:
        tower: config of an image tower with transformer blocks, or a built one.
        frames: pictures of a clip; may be set anew at any time, up to `longest`. In eval mode a batch is one clip if it
            is not longer than that.
        blocks: that hear other frames, counted from 0; all by default.
        heads: of the attention in time; the tokens' width over 64 by default.
        longest: frames with a learned position; `frames` by default.
        **options: arguments of the tower where its config does not name them.

    Raises:
        UserError: no transformer blocks, or there is no such block.

    Source: Frozen in Time (Bain et al., ICCV 2021), its divided space-time blocks. Theirs starts with zeros in query,
    key and value and ones in the last map; here the last map is zero, from which every weight learns apart.
    """

    def __init__(self, tower: Mapping[str, Any] | ImageTower, frames: int, *, blocks: Sequence[int] | None = None,
                 heads: int | None = None, longest: int | None = None, **options: object) -> None:
        super().__init__(tower, **options)
        found = transformer_blocks(self)
        self.blocks = tuple(range(len(found))) if blocks is None else tuple(blocks)
        if any(not 0 <= block < len(found) for block in self.blocks):
            raise UserError(f'blocks must be among 0 to {len(found) - 1}, got {list(self.blocks)}')
        width = self.tap_channels or 0
        self.frames = frames
        self.time = nn.ModuleList(TimeAttention(width, heads or max(1, width // 64), longest or frames)
                                  for _ in self.blocks)

    def hooks(self, network: nn.Module) -> list[Hook]:
        """See `TowerWithParts.hooks`."""
        if self.frames == 1:
            return []
        found = transformer_blocks(self)

        def before(time: nn.Module) -> Callable[..., Any]:
            def listen(norm: nn.Module, given: tuple[Tensor]) -> Tensor:
                tokens = given[0].flatten(1, -2)  # SAM's blocks keep the grid
                frames = self.frames if self.training else min(self.frames, len(tokens))
                return (tokens + time(tokens, frames)).view_as(given[0])
            return listen

        return [(first_norm(found[block], self.name), before(time), True)
                for block, time in zip(self.blocks, self.time)]


@MODELS.register_module()
class SpaceTimeNeck(BaseModule):
    """Attention over the frames of a clip behind one map of any backbone, e.g. of a frozen convolutional network.

    `map + T(map)` in every cell, the map itself at the start and with one frame.

    Args:
        in_channels: widths of the backbone's maps.
        frames: pictures of a clip; they lie one after the other in the batch. In eval mode a batch is one clip if it is
            not longer than that.
        level: which of the maps; the last by default.
        heads: of the attention.
        init_cfg: see mmengine's `BaseModule`.
    """

    def __init__(self, in_channels: Sequence[int], frames: int, *, level: int = -1, heads: int = 4,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not -len(in_channels) <= level < len(in_channels):
            raise UserError(f'level must be the place of one of the {len(in_channels)} maps, got {level}')
        self.level, self.frames = level % len(in_channels), frames
        self.time = TimeAttention(in_channels[level], heads, frames)

    def init_weights(self) -> None:
        """Nothing: it starts as the identity."""

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The maps (B * F, C, h, w), one of them with what the other frames say."""
        maps = list(inputs)
        chosen = maps[self.level]
        frames = self.frames if self.training else min(self.frames, len(chosen))
        added = self.time(chosen.flatten(2).transpose(1, 2), frames)
        maps[self.level] = chosen + added.transpose(1, 2).view_as(chosen)
        return tuple(maps)
