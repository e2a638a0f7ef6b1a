"""One frozen tower and what a detector takes from it."""
from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from torch import Tensor, nn

from frozenmm.detection.frozen_detr.patch_levels import patch_mask
from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation import ImageTower
from frozenmm.foundation.image_tower import TOKEN_COUNTS
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats, TowerFeatures


class FrozenEnhancer(nn.Module):
    """A frozen tower with the number of image queries and the maps that a detector takes from it.

    Args:
        tower: an `ImageTower` or its config.
        image_queries: 0, 1, 5, 14 or 30 image tokens for the decoder.
        patch_maps: names of maps that become encoder levels.
    """

    def __init__(self, tower: ImageTower | dict, *, image_queries: int = 0, patch_maps: Sequence[str] = ()) -> None:
        super().__init__()
        tower = tower if isinstance(tower, ImageTower) else MODELS.build(tower)
        if not isinstance(tower, ImageTower):
            raise WrongKind(f'an enhancer needs an image tower, got {type(tower).__name__}')
        if image_queries not in TOKEN_COUNTS:
            raise UserError(f'image_queries must be one of {list(TOKEN_COUNTS)}, got {image_queries}')
        if isinstance(patch_maps, str):
            raise WrongKind(f'patch_maps must be a list of names, got the string {patch_maps!r}; '
                            f'write patch_maps=[{patch_maps!r}]')
        for name in patch_maps:
            if name not in tower.channels:
                near = get_close_matches(name, tower.channels, 1)
                raise UserError(f'{tower.name} has no map {name!r}; it gives {list(tower.channels)}'
                                + (f'. Did you mean {near[0]!r}?' if near else ''))
        self.tower = tower
        self.image_queries = image_queries
        self.patch_maps = list(patch_maps)

    @property
    def map_channels(self) -> list[int]:
        """Width of every map that becomes an encoder level."""
        return [self.tower.channels[name] for name in self.patch_maps]

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]], stats: ImageStats) -> TowerFeatures:
        """Features of the pipeline's batch; see `ImageTower.forward`."""
        return self.tower(images, sizes, stats, num_tokens=self.image_queries)

    def maps(self, features: TowerFeatures) -> list[tuple[Tensor, Tensor | None]]:
        """The maps that become encoder levels, (B, C, h, w), each with its padding mask (B, h, w) or None."""
        return [(features.map(name), patch_mask(self.tower, features, name)) for name in self.patch_maps]
