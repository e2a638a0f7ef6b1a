"""Any neck, with a frozen map added to its levels."""
from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from frozenmm.errors import UnknownName, UserError
from frozenmm.foundation.image_grid import grid_step, to_image_grid
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.joining import AUTO, BatchInView, agreed_stats, join_when_taken_in, parse_stats, share_image
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.tower_building import build_tower
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats


class AddFusion(nn.Module):
    """`level + gate * projection(frozen)`, one gate per channel, zero at the start."""

    def __init__(self, level_channels: int, frozen_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(frozen_channels, level_channels, 1)
        self.gate = nn.Parameter(torch.zeros(level_channels, 1, 1))

    def forward(self, level: Tensor, frozen: Tensor) -> Tensor:
        """Both (B, C, h, w); the result has the level's shape."""
        return level + self.gate * self.project(frozen)

    def start_plain(self) -> None:
        """Make the output equal the level."""
        nn.init.zeros_(self.gate)


class ConcatFusion(nn.Module):
    """A 1x1 convolution over level and projected frozen map; at the start it passes the level through."""

    def __init__(self, level_channels: int, frozen_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(frozen_channels, level_channels, 1)
        self.mix = nn.Conv2d(2 * level_channels, level_channels, 1)
        self.start_plain()

    def forward(self, level: Tensor, frozen: Tensor) -> Tensor:
        """Both (B, C, h, w); the result has the level's shape."""
        return self.mix(torch.cat([level, self.project(frozen)], 1))

    def start_plain(self) -> None:
        """Make the output equal the level."""
        channels = self.mix.out_channels
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(channels, 2 * channels)[..., None, None])
            self.mix.bias.zero_()  # type: ignore[union-attr]


FUSIONS: dict[str, type[AddFusion] | type[ConcatFusion]] = {'add': AddFusion, 'concat': ConcatFusion}


@MODELS.register_module()
class FrozenFeatureNeck(BaseModule):
    """A neck whose levels also see a frozen network; at the start of training it equals the plain neck.

    The frozen map is laid on the grid of every level by the region of the image that the tower saw, projected and fused
    through a gate that starts at zero. The image is what the model's backbone saw, the statistics are those of its data
    preprocessor (`frozenmm.foundation.joining`). No other line of the config changes.

    Args:
        neck: config of the neck (`dict(type='mmdet.FPN', ...)`) or a built one; returns a list or tuple of maps.
        tower: config of an image tower or a built one; any `resize_mode`, `'none'` by default.
        maps: which of the tower's maps: one name for all levels, or one per level in `levels`; the last by default.
        levels: which levels get it, by position; all by default.
        fusion: `'add'` or `'concat'`.
        num_levels: number of the neck's outputs, where it has no `num_outs`.
        out_channels: width of the neck's levels, where it has no `out_channels`.
        image_stats: see `FrozenBackbone`.
        init_cfg: see mmengine's `BaseModule`.

    Raises:
        UserError: unknown fusion, map or level; width or number of levels unknown.
    """

    def __init__(self, neck: dict | nn.Module, tower: dict | ImageTower, *, maps: str | Sequence[str] | None = None,
                 levels: Sequence[int] | None = None, fusion: str = 'add', num_levels: int | None = None,
                 out_channels: int | None = None, image_stats: str | dict | ImageStats = AUTO,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.neck = MODELS.build(neck) if isinstance(neck, dict) else neck
        self.tower = build_tower(tower, part='FrozenFeatureNeck', resize_mode='none')
        self.num_levels = self._of_neck('num_outs', num_levels, 'num_levels')
        self.out_channels = self._of_neck('out_channels', out_channels, 'out_channels')
        self.levels = self._checked_levels(levels)
        self.maps = self._checked_maps(maps)
        widths = [self.tower.channels[name] for name in self.maps]
        fuse = FUSIONS[choice('fusion', fusion, FUSIONS)]
        self.fusions = nn.ModuleList(fuse(self.out_channels, width) for width in widths)
        self.image_stats = parse_stats(image_stats)
        self.batch: BatchInView | None = None
        join_when_taken_in(self)

    def join(self, model: nn.Module) -> None:
        """Take the model's statistics and its view of the batch; see `frozenmm.foundation.joining`."""
        self.image_stats = agreed_stats(self.image_stats, model, part='FrozenFeatureNeck')
        self.batch = share_image(model)

    def init_weights(self) -> None:
        """As mmengine initialises modules; whatever that does to convolutions, the neck starts as the plain one."""
        super().init_weights()
        for fusion in self.fusions:
            cast(AddFusion | ConcatFusion, fusion).start_plain()

    def forward(self, inputs: Sequence[Tensor], image: Tensor | None = None) -> tuple[Tensor, ...]:
        """The neck's levels with the frozen map fused in.

        Args:
            inputs: the backbone's maps, as the neck takes them.
            image: (B, 3, H, W), the batch that they were made from; in a joined model that of the backbone's last
                forward.

        Returns:
            The levels, of unchanged shapes.

        Raises:
            UserError: image or statistics are not known, or the neck's levels are not those promised.
        """
        if image is None and self.batch is not None:
            image = self.batch.take()
        if image is None or self.image_stats is None:
            raise UserError('FrozenFeatureNeck got feature maps without the image that they were made from: '
                            'it is no part of a model, or the model called its neck without its backbone; call '
                            'neck(maps, image) with image_stats given')
        outputs = list(self.neck(inputs))
        if len(outputs) != self.num_levels:
            raise UserError(f'{type(self.neck).__name__} returned {len(outputs)} levels, expected {self.num_levels}')
        features = self.tower(image, image_stats=self.image_stats)
        for index, name, fusion in zip(self.levels, self.maps, self.fusions):
            size = (outputs[index].shape[-2], outputs[index].shape[-1])
            step = grid_step((image.shape[-2], image.shape[-1]), size)
            frozen = to_image_grid(features.maps[name], features.region, size, step)
            outputs[index] = fusion(outputs[index], frozen)
        return tuple(outputs)

    def _of_neck(self, attribute: str, given: int | None, argument: str) -> int:
        value = getattr(self.neck, attribute, given) if given is None else given
        if not isinstance(value, int):
            raise UserError(f'{type(self.neck).__name__} does not say its {attribute}; give {argument}=')
        return value

    def _checked_levels(self, levels: Sequence[int] | None) -> list[int]:
        chosen = list(range(self.num_levels)) if levels is None else list(levels)
        if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= i < self.num_levels for i in chosen):
            raise UserError(f'levels must choose among 0..{self.num_levels - 1}, each once, got {chosen}')
        return chosen

    def _checked_maps(self, maps: str | Sequence[str] | None) -> list[str]:
        names = list(self.tower.channels)
        if maps is None or isinstance(maps, str):
            maps = [names[-1] if maps is None else maps] * len(self.levels)
        if len(maps) != len(self.levels):
            raise UserError(f'{len(maps)} maps for {len(self.levels)} levels; give one name, or one per level')
        unknown = sorted(set(maps) - set(names))
        if unknown:
            raise UnknownName(f'{self.tower.name} has no maps {unknown}; it gives {names}')
        return list(maps)
