"""DINOv3's ViTs as frozen towers, from transformers folders, official files and timm's files.

Weights: Meta, under the DINOv3 licence: own terms, not Apache-2.0, and gated where they are published; commercial use
is allowed under conditions. Read them before you use the weights: https://github.com/facebookresearch/dinov3
"""
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.errors import UserError, reading
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.dinov2 import IMAGENET_STATS
from frozenmm.foundation.image_towers.dinov3_vit import DINOv3VisionTransformer
from frozenmm.foundation.image_towers.doors import model_name
from frozenmm.foundation.lookup import require_known
from frozenmm.foundation.weights import WeightFile, build_network, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

LICENCE = 'DINOv3 licence (own terms, not Apache-2.0; gated)'
SATELLITE_STATS = ImageStats((109.65, 104.805, 75.48), (54.315, 39.78, 36.465))
"""Channel means and deviations times 255 of the models trained on satellite pictures (SAT-493M)."""
_SIZES: dict[str, tuple[dict[str, Any], int]] = {
    's16': (dict(embed_dim=384, depth=12, num_heads=6), 86),
    's16plus': (dict(embed_dim=384, depth=12, num_heads=6, hidden_dim=1536, gated=True), 115),
    'b16': (dict(embed_dim=768, depth=12, num_heads=12), 343),
    'l16': (dict(embed_dim=1024, depth=24, num_heads=16), 1212),
    'h16plus': (dict(embed_dim=1280, depth=32, num_heads=20, hidden_dim=5120, gated=True), 3363),
    '7b16': (dict(embed_dim=4096, depth=40, num_heads=32, hidden_dim=8192, gated=True, qkv_bias=False), 26864),
}
"""Sizes by name, and megabytes of the published file."""
MODEL_NAMES = [*(f'dinov3_vit{size}' for size in _SIZES), 'dinov3_vitl16_sat493m', 'dinov3_vit7b16_sat493m']
_CUSTOM = {'patch_size', 'embed_dim', 'depth', 'num_heads', 'hidden_dim', 'num_register_tokens', 'gated', 'qkv_bias'}
_CONFIG = {'patch_size': 'patch_size', 'hidden_size': 'embed_dim', 'num_hidden_layers': 'depth',
           'num_attention_heads': 'num_heads', 'intermediate_size': 'hidden_dim',
           'num_register_tokens': 'num_register_tokens', 'use_gated_mlp': 'gated', 'query_bias': 'qkv_bias'}
"""Keys of a transformers config and our arguments."""
_RENAMES = tuple((re.compile(pattern), to) for pattern, to in (
    (r'(?:model\.)?(layer\..+|norm\..+)', r'\1'),
    (r'embeddings\.(?!mask_token)(.+)', r'embeddings.\1'),
    (r'cls_token', 'embeddings.cls_token'),
    (r'(?:storage_tokens|reg_token)', 'embeddings.register_tokens'),
    (r'patch_embed\.proj\.(.+)', r'embeddings.patch_embeddings.\1'),
    (r'blocks\.(\d+)\.(norm[12]\..+)', r'layer.\1.\2'),
    (r'blocks\.(\d+)\.attn\.qkv\.(weight|bias)', r'layer.\1.attention.qkv.\2'),
    (r'blocks\.(\d+)\.attn\.(q|v)_bias', r'layer.\1.attention.\2_proj.bias'),
    (r'blocks\.(\d+)\.attn\.proj\.(.+)', r'layer.\1.attention.o_proj.\2'),
    (r'blocks\.(\d+)\.ls([12])\.gamma', r'layer.\1.layer_scale\2.lambda1'),
    (r'blocks\.(\d+)\.gamma_([12])', r'layer.\1.layer_scale\2.lambda1'),
    (r'blocks\.(\d+)\.mlp\.(?:w1|fc1_g)\.(.+)', r'layer.\1.mlp.gate_proj.\2'),
    (r'blocks\.(\d+)\.mlp\.(?:w2|fc1_x|fc1)\.(.+)', r'layer.\1.mlp.up_proj.\2'),
    (r'blocks\.(\d+)\.mlp\.(?:w3|fc2)\.(.+)', r'layer.\1.mlp.down_proj.\2'),
))
_UNUSED = re.compile(r'(?:embeddings\.)?mask_token|(?:model\.)?rope_embed.*|.*\.bias_mask|local_cls_norm\..+')


def dinov3_model(model: str | Mapping[str, object]) -> tuple[str, dict[str, Any], WeightFile | None]:
    """Name, constructor arguments and published file of a DINOv3 ViT.

    Args:
        model: `'dinov3_vits16'`, ..., also without `dinov3_` or as `'facebook/dinov3-vits16-pretrain-lvd1689m'`; or a
            dict of arguments of `DINOv3VisionTransformer`.

    Raises:
        UnknownName: unknown name or argument, with the nearest ones.
    """
    if not isinstance(model, str):
        require_known(model, _CUSTOM, 'size of a DINOv3 model')
        return 'custom', dict(model), None
    short = model.rpartition('/')[2].replace('-pretrain', '').replace('-lvd1689m', '')
    name = model_name(short, MODEL_NAMES, kind='DINOv3 model', tower='DINOv3Tower', prefix='dinov3_')
    size, _, data = name.removeprefix('dinov3_vit').partition('_')
    sizes, megabytes = _SIZES[size]
    repository = f'facebook/dinov3-vit{size}-pretrain-{data or "lvd1689m"}'
    return name, dict(sizes), WeightFile(f'https://huggingface.co/{repository}/resolve/main/model.safetensors',
                                         megabytes, LICENCE, name=f'{name}.safetensors')


def folder_sizes(folder: Path) -> dict[str, Any]:
    """Constructor arguments from the `config.json` of a transformers folder.

    Raises:
        UserError: no such file, or not that of a DINOv3 ViT.
    """
    path = folder / 'config.json'
    with reading(path, 'the config of a transformers model', 'save the model with `save_pretrained`'):
        content = dict(json.loads(path.read_text()))
    if content.get('model_type') != 'dinov3_vit':
        raise UserError(f'{path} describes a model of type {content.get("model_type")!r}; DINOv3Tower reads '
                        '\'dinov3_vit\'; other models of the transformers library have towers of their own')
    return {ours: content[theirs] for theirs, ours in _CONFIG.items() if theirs in content}


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the transformers library, the official code or timm under the names of our network."""
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        if _UNUSED.fullmatch(key):
            continue
        new = next((match.expand(to) for pattern, to in _RENAMES if (match := pattern.fullmatch(key))), key)
        if '.attention.qkv.' in new:
            for letter, part in zip('qkv', value.chunk(3)):
                if letter != 'k' or new.endswith('weight'):  # the official key bias is masked with zeros
                    result[new.replace('qkv', f'{letter}_proj')] = part
        else:
            result[new] = value
    if not any(key.startswith('embeddings.register_tokens') for key in result) and 'embeddings.cls_token' in result:
        result['embeddings.register_tokens'] = result['embeddings.cls_token'][:, :0]
    return result


def with_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with zero biases of query and value where a file leaves them out, as timm's plain names do."""
    missing = {f'{start}{letter}_proj.bias': torch.zeros(len(value)) for key, value in state.items()
               if key.endswith('attention.q_proj.weight') for start in [key.removesuffix('q_proj.weight')]
               for letter in 'qv' if f'{start}{letter}_proj.bias' not in state}
    return {**state, **missing}


@MODELS.register_module()
class DINOv3Tower(ImageTower):
    """DINOv3's ViT: the map `'patch'` and the class token, both after the final norm; gives taps.

    Args:
        model: see `dinov3_model`; None: as the `config.json` of the folder `weights` says.
        weights: a transformers folder, or a file in the names of the transformers library, the official code or timm;
            None for the published one (gated: download it yourself once); `'random'`.
        precision: see `FrozenModule`.
        **options: of `ImageTower`.
    """

    def __init__(self, model: str | Mapping[str, object] | None = 'dinov3_vitl16', weights: str | Path | None = None, *,
                 precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        folder = None if weights is None or not Path(weights).is_dir() else Path(weights)
        if model is None:
            if folder is None:
                raise UserError('model=None takes the sizes from a transformers folder; give one as `weights`, or name '
                                f'the model, e.g. {MODEL_NAMES[0]!r}')
            model = folder_sizes(folder)
        key, sizes, file = dinov3_model(model)
        name = f'DINOv3 {key}{weights_note(weights)}'
        source = weights if folder is None else folder / 'model.safetensors'

        def select(state: dict[str, Tensor]) -> dict[str, Tensor]:
            renamed = our_names(state)
            return with_biases(renamed) if sizes.get('qkv_bias', True) else renamed

        network = shared_network(
            ('DINOv3', tuple(sorted(sizes.items())), weights_key(source), file),
            lambda: build_network(lambda: DINOv3VisionTransformer(**sizes), source, file, name=name, select=select),
            name=name, precision=precision)
        module = cast(DINOv3VisionTransformer, network.module)
        stats = SATELLITE_STATS if key.endswith('sat493m') else IMAGENET_STATS
        super().__init__(
            network, input=TowerInput(stats, 14 * module.patch_size, module.patch_size, 'bilinear'),
            channels={'patch': module.embed_dim}, strides={'patch': module.patch_size},
            token_channels=module.embed_dim, blocks=(len(module.layer), module.embed_dim), **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`. Only one image token is the class token; more are means of patches."""
        maps, class_token = network(pixels, self.taps or ())
        return RawFeatures(maps=maps, tokens=class_token[:, None] if num_tokens == 1 else None, class_token=class_token)
