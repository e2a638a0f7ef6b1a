"""DINO (the first one) as a frozen tower, from the official files, with the official resizing of positions.

timm's `vit_*.dino` have the same weights, but resize the position table to a size and not by DINO's factor. Weights:
Meta, Apache-2.0.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.errors import UserError
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.dinov2 import IMAGENET_STATS
from frozenmm.foundation.image_towers.dinov2_vit import DinoVisionTransformer
from frozenmm.foundation.image_towers.doors import model_name
from frozenmm.foundation.weights import WeightFile, build_network, weights_key, weights_note
from frozenmm.registry import MODELS

_SMALL, _BASE = dict(embed_dim=384, num_heads=6), dict(embed_dim=768, num_heads=12)
_MODELS: dict[str, tuple[dict[str, Any], str, int]] = {
    'dino_vits16': (dict(_SMALL, patch_size=16), 'dino_deitsmall16_pretrain', 83),
    'dino_vits8': (dict(_SMALL, patch_size=8), 'dino_deitsmall8_pretrain', 83),
    'dino_vitb16': (dict(_BASE, patch_size=16), 'dino_vitbase16_pretrain', 327),
    'dino_vitb8': (dict(_BASE, patch_size=8), 'dino_vitbase8_pretrain', 327),
}
"""Sizes, the name of the official file, and its megabytes."""
_CUSTOM = ('img_size', 'patch_size', 'embed_dim', 'depth', 'num_heads', 'norm_eps')


def dino_model(model: str | Mapping[str, Any]) -> tuple[str, dict[str, Any], WeightFile | None]:
    """Name, constructor arguments and published file of a DINO model.

    Args:
        model: `'dino_vits16'`, `'dino_vits8'`, `'dino_vitb16'`, `'dino_vitb8'`, or a dict of arguments of
            `DinoVisionTransformer`.

    Raises:
        UserError: unknown name (with the nearest ones) or argument.
    """
    if not isinstance(model, str):
        unknown = set(model) - set(_CUSTOM)
        if unknown:
            raise UserError(f'unknown sizes of a DINO model {sorted(unknown)}; known: {list(_CUSTOM)}')
        return 'custom', dict(model), None
    name = model_name(model, _MODELS, kind='DINO model', tower='DINOTower')
    sizes, file, megabytes = _MODELS[name]
    url = f'https://dl.fbaipublicfiles.com/dino/{file}/{file}.pth'
    return name, {'img_size': 224, **sizes}, WeightFile(url, megabytes, 'Apache-2.0')


@MODELS.register_module()
class DINOTower(ImageTower):
    """DINO's ViT: the map `'patch'` and image tokens, both after the final norm.

    Args:
        model: see `dino_model`.
        weights: path of an official file; None for the published one; `'random'`.
        precision: see `FrozenModule`.
        **options: of `ImageTower`.
    """

    def __init__(self, model: str | Mapping[str, Any] = 'dino_vitb16', weights: str | Path | None = None, *,
                 precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        key, sizes, file = dino_model(model)
        name = f'DINO {key}{weights_note(weights)}'
        network = shared_network(
            ('DINO', tuple(sorted(sizes.items())), weights_key(weights), file),
            lambda: build_network(lambda: DinoVisionTransformer(**sizes, layer_scale=False), weights, file, name=name),
            name=name, precision=precision)
        module = cast(DinoVisionTransformer, network.module)
        super().__init__(
            network, input=TowerInput(IMAGENET_STATS, module.native_grid * module.patch_size, module.patch_size),
            channels={'patch': module.embed_dim}, strides={'patch': module.patch_size},
            token_channels=module.embed_dim, **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`."""
        maps, tokens = network(pixels, max(num_tokens, 1))
        return RawFeatures(maps=maps, tokens=tokens, class_token=tokens[:, 0])
