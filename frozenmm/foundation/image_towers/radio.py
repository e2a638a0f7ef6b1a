"""RADIO (NVIDIA) as a frozen tower, from the official files.

Weights: C-RADIO under the NVIDIA Open Model License, other RADIO weights for research only.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.errors import UserError
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.clip import STATS
from frozenmm.foundation.image_towers.doors import model_name
from frozenmm.foundation.image_towers.radio_vit import RADIONetwork
from frozenmm.foundation.state_file import read_state
from frozenmm.foundation.weights import WeightFile, build_network, locate, random_seed, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

_HOST = 'https://huggingface.co/nvidia'
RADIO_MODELS: dict[str, tuple[dict[str, Any], WeightFile]] = {
    f'c-radio_v3-{letter}': (
        dict(embed_dim=width, depth=depth, num_heads=heads, adaptor=(1536, 1536, 2), layer_scale=True),
        WeightFile(f'{_HOST}/C-RADIOv3-{letter.upper()}/resolve/main/c-radio_v3-{letter}_half.pth.tar', megabytes,
                   'NVIDIA Open Model License'))
    for letter, (width, depth, heads, megabytes) in dict(
        b=(768, 12, 12, 400), l=(1024, 24, 16, 1000), h=(1280, 32, 16, 1800)).items()}
"""Sizes and the published file (megabytes are estimates). A file decides its sizes itself; see `radio_sizes`."""
_CUSTOM = ('embed_dim', 'depth', 'num_heads', 'patch_size', 'position_side', 'prefix', 'adaptor', 'norm_eps',
           'layer_scale')
_BLOCK = re.compile(r'base_model\.blocks\.(\d+)\.')


def radio_part(state: Mapping[str, Tensor], adaptor: str | None) -> dict[str, Tensor]:
    """Tower and one adaptor of an official file (or of its Hugging Face copy), under our names.

    Args:
        state: the file's content.
        adaptor: name or number of the language adaptor in the file; None takes none.

    Raises:
        UserError: the file has no such adaptor; the text lists those that it has.
    """
    state = {re.sub(r'^(radio_model\.)?(model\.)?', '', key): value for key, value in state.items()}
    state = {key if key.startswith(('base_model.', '_', 'input_')) else f'base_model.{key}': value
             for key, value in state.items()}
    part = {key: value for key, value in state.items()
            if key.startswith(('base_model.patch_generator.', 'base_model.blocks.'))
            and not key.startswith('base_model.patch_generator.video')}
    if adaptor is None:
        return part
    prefix = f'_heads.{adaptor}.'
    head = {f'adaptor.{key[len(prefix):]}': value for key, value in state.items() if key.startswith(prefix)}
    if not head:
        found = sorted({key.split('.')[1] for key in state if key.startswith('_heads.')})
        raise UserError(f'the RADIO file has no language adaptor {adaptor!r}; it has {found or "none"}')
    return {**part, **head}


def radio_sizes(part: Mapping[str, Tensor], num_heads: int) -> dict[str, Any]:
    """Arguments of `RADIONetwork` that a file's tower and adaptor (`radio_part`) have.

    Args:
        part: their names and tensors.
        num_heads: heads of a block, which no tensor tells.
    """
    generator = 'base_model.patch_generator.'
    prefix, width = part[f'{generator}cls_token.token'].shape
    sizes: dict[str, Any] = dict(
        embed_dim=width, depth=1 + max(int(match[1]) for match in map(_BLOCK.match, part) if match),
        num_heads=num_heads, patch_size=round((part[f'{generator}embedder.weight'].shape[1] // 3) ** 0.5),
        position_side=round(part[f'{generator}pos_embed'].shape[1] ** 0.5), prefix=prefix,
        layer_scale='base_model.blocks.0.ls1.gamma' in part)
    if 'adaptor.fc1.weight' in part:
        inner = len([key for key in part if re.fullmatch(r'adaptor\.blocks\.\d+\.0\.weight', key)])
        sizes['adaptor'] = (len(part['adaptor.fc1.weight']), len(part['adaptor.final.2.weight']), inner)
    return sizes


@MODELS.register_module()
class RADIOTower(ImageTower):
    """RADIO's ViT: the map `'patch'` (last block, there is no final norm) and its first class token.

    Args:
        model: `'c-radio_v3-b'`, `'c-radio_v3-l'`, `'c-radio_v3-h'`, or a dict of arguments of `RADIONetwork`, of which
            a weights file leaves `num_heads` and `norm_eps` to decide.
        weights: path of an official file; None for the published one; `'random'`.
        adaptor: name or number of the language adaptor in the file.
        precision: see `FrozenModule`.
        **options: of `ImageTower`.
    """

    def __init__(self, model: str | Mapping[str, Any] = 'c-radio_v3-b', weights: str | Path | None = None, *,
                 adaptor: str | None = 'siglip2-g', precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        sizes, file, key = (dict(model), None, 'custom') if not isinstance(model, str) else ({}, None, model)
        if isinstance(model, str):
            key = model_name(model.lower(), RADIO_MODELS, kind='RADIO model', tower='RADIOTower')
            sizes, file = RADIO_MODELS[key]
        unknown = set(sizes) - set(_CUSTOM)
        if unknown:
            raise UserError(f'unknown sizes of a RADIO model {sorted(unknown)}; known: {list(_CUSTOM)}')
        name = f'RADIO {key}{weights_note(weights)}'

        def build() -> RADIONetwork:
            if random_seed(weights) is not None:
                return build_network(lambda: RADIONetwork(**sizes), weights, None, name=name)
            path = locate(weights, file, name=name)
            part = radio_part(read_state(path), adaptor)
            found = {**radio_sizes(part, sizes['num_heads']),
                     **{name: sizes[name] for name in ('norm_eps',) if name in sizes}}
            return build_network(lambda: RADIONetwork(**found), path, None, name=name,
                                 select=lambda state: radio_part(state, adaptor))

        network = shared_network(('RADIO', repr(sorted(sizes.items())), adaptor, weights_key(weights), file), build,
                                 name=name, precision=precision)
        module = cast(RADIONetwork, network.module)
        super().__init__(network, input=TowerInput(_stats(weights, file), 512, module.patch_size),
                         channels={'patch': module.embed_dim}, strides={'patch': module.patch_size},
                         token_channels=module.embed_dim, **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`. Only one image token is a class token; more are means of patches."""
        x, grid = network(pixels)
        prefix = cast(RADIONetwork, self.network).prefix
        tokens = x[:, :1] if num_tokens == 1 else None
        return RawFeatures(maps={'patch': x[:, prefix:].transpose(1, 2).unflatten(2, grid)}, tokens=tokens,
                           class_token=x[:, 0])


def _stats(weights: str | Path | None, file: WeightFile | None) -> ImageStats:
    """The normalisation, which is CLIP's in all published models; a file's own where it states one."""
    if random_seed(weights) is not None:
        return STATS
    state = read_state(locate(weights, file, name='RADIO'))
    found = {key.rsplit('.', 1)[-1]: value for key, value in state.items() if 'input_conditioner.' in key}
    if not {'norm_mean', 'norm_std'} <= set(found):
        return STATS
    mean, std = (tuple(255.0 * value for value in found[key].flatten().to(torch.float64).tolist())
                 for key in ('norm_mean', 'norm_std'))
    return ImageStats(cast(Any, mean), cast(Any, std))
