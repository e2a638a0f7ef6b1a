"""Frozen towers as seen by a detector of any kind: image queries for its decoder, more levels for its encoder."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from mmdet.structures import SampleList
from torch import Tensor, nn

from frozenmm.detection.frozen_detr.enhancer import FrozenEnhancer
from frozenmm.detection.frozen_detr.image_queries import ImageQueries, LayerImageQueries, image_query_references
from frozenmm.detection.frozen_detr.levels import Levels, join_levels
from frozenmm.detection.frozen_detr.patch_levels import PatchLevel
from frozenmm.errors import UserError
from frozenmm.foundation import ImageTower
from frozenmm.structures import ImageStats, TowerFeatures

FeatureSource = Callable[[SampleList], 'list[TowerFeatures] | None']


def build_enhancers(enhancers: Sequence[dict | FrozenEnhancer]) -> list[FrozenEnhancer]:
    """The enhancers of a detector from their configs; image queries may come from one of them."""
    built = [item if isinstance(item, FrozenEnhancer) else FrozenEnhancer(**item) for item in enhancers]
    giving = [index for index, item in enumerate(built) if item.image_queries]
    if len(giving) > 1:
        raise UserError(f'image queries come from one tower, but the enhancers {giving} all give some; '
                        'set image_queries=0 in the others')
    return built


class Enhancement(nn.Module):
    """The trained part between frozen towers and a detector.

    Args:
        enhancers: the towers and what is taken from them.
        embed_dims: width of the detector's transformer.
        num_layers: its decoder layers.
        norm: `'GN'` (DINO-coco) or `'LN'` (the mmdet-2.x fork), see `PatchLevel`.
        groups: groups of the GroupNorm.
        learned_positions: learn a position embedding of every image query, for detectors that have no function from
            a box to a position embedding.
        learned_levels: learn a level embedding of every frozen map, for detectors that have none.
    """

    def __init__(self, enhancers: Sequence[FrozenEnhancer], embed_dims: int, num_layers: int, *, norm: str = 'GN',
                 groups: int = 32, learned_positions: bool = False, learned_levels: bool = False) -> None:
        super().__init__()
        self.enhancers = nn.ModuleList(enhancers)
        self.patch_levels = nn.ModuleList(PatchLevel(channels, embed_dims, norm=norm, groups=groups)
                                          for item in enhancers for channels in item.map_channels)
        self.image_queries: ImageQueries | None = None
        self.positions: nn.Embedding | None = None
        for item in enhancers:
            if item.image_queries:
                self.image_queries = ImageQueries(item.tower.token_channels, embed_dims, num_layers,
                                                  count=item.image_queries)
                self.positions = nn.Embedding(item.image_queries, embed_dims) if learned_positions else None
        self.level_embed = nn.Parameter(torch.randn(len(self.patch_levels), embed_dims)) \
            if learned_levels and len(self.patch_levels) else None

    @property
    def towers(self) -> list[ImageTower]:
        """The frozen towers, in the order of the enhancers."""
        return [enhancer.tower for enhancer in self._items]

    @property
    def _items(self) -> list[FrozenEnhancer]:
        return [cast(FrozenEnhancer, enhancer) for enhancer in self.enhancers]

    def features(self, images: Tensor, samples: SampleList, *, stats: ImageStats,
                 source: FeatureSource | None = None) -> list[TowerFeatures]:
        """Features of every tower for a batch.

        Args:
            images: (B, 3, H, W), the batch behind the data preprocessor.
            samples: their samples; `img_shape` tells the size without padding.
            stats: normalisation of the images.
            source: gives the features instead of the towers, or None to let them run.
        """
        features = source(samples) if source is not None else None
        if features is None:
            return [enhancer(images, image_sizes(samples), stats) for enhancer in self.enhancers]
        if len(features) != len(self.enhancers):
            raise UserError(f'feature_source gave features of {len(features)} towers, but the detector has '
                            f'{len(self.enhancers)} enhancers')
        return features

    def maps(self, features: Sequence[TowerFeatures]) -> list[tuple[Tensor, Tensor | None]]:
        """The projected maps, (B, C, h, w) each, with padding masks (B, h, w) or None."""
        maps = [pair for enhancer, given in zip(self._items, features) for pair in enhancer.maps(given)]
        return [(level(feature_map), mask) for level, (feature_map, mask) in zip(self.patch_levels, maps)]

    def levels(self, features: Sequence[TowerFeatures], encoding: nn.Module, level_embed: Tensor) -> Levels:
        """The projected maps as levels; `level_embed` (P, C) has one row for each."""
        maps, masks = zip(*self.maps(features))
        return join_levels(maps, masks, encoding, level_embed)

    def queries(self, features: Sequence[TowerFeatures], samples: SampleList) -> LayerImageQueries | None:
        """The image queries of every decoder layer; None without image queries."""
        if self.image_queries is None:
            return None
        tokens = next(given.tokens for enhancer, given in zip(self._items, features) if enhancer.image_queries)
        if tokens is None:
            raise UserError(f'the features hold no image tokens, but the detector uses {self.image_queries.count}; '
                            'compute them with num_tokens set')
        references = image_query_references(image_sizes(samples), self.image_queries.count)
        return LayerImageQueries(self.image_queries(tokens), references.to(tokens.device, non_blocking=True))


def image_sizes(samples: SampleList) -> list[tuple[int, int]]:
    """(height, width) of every image without padding."""
    return [(sample.img_shape[0], sample.img_shape[1]) for sample in samples]
