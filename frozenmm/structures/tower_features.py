"""What an image tower returns."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from frozenmm.errors import UnknownName


@dataclass
class TowerFeatures:
    """Features of a batch of B images.

    Attributes:
        maps: dense maps by name (`'res2'`..`'res5'`, `'patch'`, ...), each (B, C, h, w) float32, in order of falling
            resolution.
        tokens: (B, T, C) float32 image tokens in the tower's embedding space, whole image first, then the cells of the
            pyramid row by row; None for towers without any.
        class_token: (B, C) float32, the embedding of the whole image; None for towers without one.
        valid: (B, 2) int64, height and width of the tower's input (pixels) that show the image; the rest is padding.
        region: (B, 4) float32 xyxy, the part of the pipeline's image (pixels) that the tower's whole input shows,
            padding included; may exceed the image.
    """

    maps: dict[str, Tensor]
    valid: Tensor
    region: Tensor
    tokens: Tensor | None = None
    class_token: Tensor | None = None

    def map(self, name: str | None = None) -> Tensor:
        """One map by name; the last (coarsest) one without a name.

        Raises:
            UnknownName: unknown name; the text lists those that exist.
        """
        if name is None:
            return next(reversed(self.maps.values()))
        if name not in self.maps:
            raise UnknownName(f'no feature map {name!r}; this tower gives {list(self.maps)}')
        return self.maps[name]


def split_features(features: TowerFeatures) -> Iterator[TowerFeatures]:
    """The features of each image alone (B = 1), as copies that do not hold the whole batch alive."""
    def part(value: Tensor | None, index: int) -> Tensor | None:
        return None if value is None else value[index:index + 1].clone()

    for i in range(len(features.valid)):
        yield TowerFeatures({name: value[i:i + 1].clone() for name, value in features.maps.items()},
                            features.valid[i:i + 1].clone(), features.region[i:i + 1].clone(),
                            part(features.tokens, i), part(features.class_token, i))


def join_features(entries: Sequence[TowerFeatures]) -> TowerFeatures:
    """One batch of several features of the same shapes."""
    def joined(values: list[Tensor | None]) -> Tensor | None:
        present = [value for value in values if value is not None]
        return torch.cat(present) if present else None

    maps = {name: torch.cat([entry.maps[name] for entry in entries]) for name in entries[0].maps}
    return TowerFeatures(maps, torch.cat([entry.valid for entry in entries]),
                         torch.cat([entry.region for entry in entries]),
                         joined([entry.tokens for entry in entries]), joined([entry.class_token for entry in entries]))
