"""DINOv2 as a frozen tower, from the official files (timm's files: `TimmTower`). Weights: Meta, Apache-2.0."""
from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.errors import UnknownName
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.dinov2_vit import DinoVisionTransformer
from frozenmm.foundation.image_towers.doors import model_name
from frozenmm.foundation.weights import WeightFile, build_network, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

IMAGENET_STATS = ImageStats((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""ImageNet's channel means and deviations times 255."""
_SIZES: dict[str, tuple[dict[str, Any], int]] = {
    's': (dict(embed_dim=384, depth=12, num_heads=6), 88),
    'b': (dict(embed_dim=768, depth=12, num_heads=12), 346),
    'l': (dict(embed_dim=1024, depth=24, num_heads=16), 1218),
    'g': (dict(embed_dim=1536, depth=40, num_heads=24, swiglu=True), 4546),
}
"""Sizes by letter, and megabytes of the official file."""
_REGISTERS = dict(num_register_tokens=4, interpolate_offset=0.0, interpolate_antialias=True)
"""How the official models with registers resize their position table."""
MODEL_NAMES = [f'dinov2_vit{letter}14{suffix}' for letter in _SIZES for suffix in ('', '_reg')]
_CHUNK = re.compile(r'^blocks\.\d+\.(\d+)\.')
_CUSTOM = {'img_size', 'patch_size', 'embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'num_register_tokens', 'swiglu',
           'norm_eps', 'interpolate_offset', 'interpolate_antialias'}


def dinov2_model(model: str | Mapping[str, object]) -> tuple[str, dict[str, Any], WeightFile | None]:
    """Name, constructor arguments and published file of a DINOv2 model.

    Args:
        model: `'dinov2_vits14'`, ..., `'dinov2_vitg14_reg'`, also without `dinov2_`; or a dict of arguments of
            `DinoVisionTransformer`.

    Raises:
        UserError: unknown name (with the nearest ones) or argument.
    """
    if not isinstance(model, str):
        unknown = set(model) - _CUSTOM
        if unknown:
            raise UnknownName(f'unknown sizes of a DINOv2 model {sorted(unknown)}; known: {sorted(_CUSTOM)}')
        return 'custom', dict(model), None
    name = model_name(model.replace('_reg4', '_reg'), MODEL_NAMES, kind='DINOv2 model', tower='DINOv2Tower',
                      prefix='dinov2_')
    sizes, megabytes = _SIZES[name[len('dinov2_vit')]]
    plain = name.removesuffix('_reg')
    file = f'{plain}_reg4_pretrain.pth' if name != plain else f'{plain}_pretrain.pth'
    weights = WeightFile(f'https://dl.fbaipublicfiles.com/dinov2/{plain}/{file}', megabytes, 'Apache-2.0')
    return name, {**sizes, **(_REGISTERS if name != plain else {})}, weights


def official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the official names: without `backbone.`, blocks of sharded training (`blocks.0.3.`) unchunked."""
    if any(key.startswith('backbone.') for key in state):
        state = {key[len('backbone.'):]: value for key, value in state.items() if key.startswith('backbone.')}
    return {_CHUNK.sub(r'blocks.\1.', key): value for key, value in state.items()}


@MODELS.register_module()
class DINOv2Tower(ImageTower):
    """DINOv2's ViT: the map `'patch'` and image tokens, both after the final norm.

    Args:
        model: see `dinov2_model`.
        weights: path of an official file; None for the published one; `'random'`.
        interpolate_antialias: whether resizing the position table widens its filter; by default as the official model
            (only with registers). The official Frozen-DETR never does.
        precision: see `FrozenModule`.
        **options: of `ImageTower`. The network's own `size` is 518; Frozen-DETR uses 336.
    """

    def __init__(self, model: str | Mapping[str, object] = 'dinov2_vitl14', weights: str | Path | None = None, *,
                 interpolate_antialias: bool | None = None, precision: str = 'fp32',
                 **options: Unpack[TowerOptions]) -> None:
        key, sizes, file = dinov2_model(model)
        if interpolate_antialias is not None:
            sizes['interpolate_antialias'] = interpolate_antialias
        name = f'DINOv2 {key}{weights_note(weights)}'
        network = shared_network(
            ('DINOv2', tuple(sorted(sizes.items())), weights_key(weights), file),
            lambda: build_network(lambda: DinoVisionTransformer(**sizes), weights, file, name=name,
                                  select=official_names),
            name=name, precision=precision)
        module = cast(DinoVisionTransformer, network.module)
        super().__init__(
            network, input=TowerInput(IMAGENET_STATS, module.native_grid * module.patch_size, module.patch_size),
            channels={'patch': module.embed_dim}, strides={'patch': module.patch_size},
            token_channels=module.embed_dim, blocks=(len(module.blocks), module.embed_dim), **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`."""
        maps, tokens = network(pixels, max(num_tokens, 1), self.taps or ())
        return RawFeatures(maps=maps, tokens=tokens, class_token=tokens[:, 0])
