"""What an image tower returns."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
        taps: block i of a ViT -> (B, P + h * w, C) float32, the whole token sequence after that block through the
            tower's final norm: P prefix tokens (class token, registers), then the patches of the last map's grid row
            by row; empty unless the tower was asked for taps.
    """

    maps: dict[str, Tensor]
    valid: Tensor
    region: Tensor
    tokens: Tensor | None = None
    class_token: Tensor | None = None
    taps: dict[int, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name: `'maps.res4'`, ..., `'taps.5'`, ..., and `'valid'`, `'region'`, `'tokens'`, ..."""
        named = {**{f'maps.{name}': value for name, value in self.maps.items()},
                 **{f'taps.{block}': value for block, value in self.taps.items()}}
        rest = dict(valid=self.valid, region=self.region, tokens=self.tokens, class_token=self.class_token)
        return {**named, **{name: value for name, value in rest.items() if value is not None}}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> TowerFeatures:
        """The features of tensors under the names of `tensors`; maps come in the order of the mapping."""
        def below(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}

        return cls(below('maps.'), tensors['valid'], tensors['region'], tensors.get('tokens'),
                   tensors.get('class_token'), {int(block): value for block, value in below('taps.').items()})

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
    tensors = features.tensors()
    for i in range(len(features.valid)):
        yield TowerFeatures.of({name: value[i:i + 1].clone() for name, value in tensors.items()})


def join_features(entries: Sequence[TowerFeatures]) -> TowerFeatures:
    """One batch of several features of the same shapes."""
    parts = [entry.tensors() for entry in entries]
    return TowerFeatures.of({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
