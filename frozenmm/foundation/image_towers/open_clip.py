"""Any image encoder of open_clip as a frozen tower. Weights: as open_clip lists them, each under its own licence."""
from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.compat import require
from frozenmm.errors import UnknownName, UserError
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.clip import STATS, vit_blocks
from frozenmm.foundation.image_towers.clip_resnet import ModifiedResNet
from frozenmm.foundation.image_towers.clip_vit import PATCH_OUTPUTS, CLIPVisionTransformer
from frozenmm.foundation.image_towers.doors import model_name
from frozenmm.foundation.image_towers.open_clip_vit import OpenCLIPViT
from frozenmm.foundation.image_towers.timm_reader import DENSE, TimmVisual
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.weights import WeightFile, build_network, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

PREFERRED_TAGS = {'convnext_large_d_320': 'laion2b_s29b_b131k_ft_soup'}
"""The weights that published segmentors use, where they are not the first in open_clip's list."""
_OWN_VIT = {'layers', 'width', 'head_width', 'mlp_ratio', 'patch_size', 'image_size', 'output_tokens'}
"""Options of a ViT that `CLIPVisionTransformer` has; one with any other keeps open_clip's own network."""


def open_clip_model(model: str | Mapping[str, Any],
                    pretrained: str | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, configuration and description of the weights of an open_clip model.

    Args:
        model: open_clip's name, or a configuration with `embed_dim` and `vision_cfg`.
        pretrained: tag of the published weights; the first one listed by default.

    Raises:
        UserError: unknown name or tag (with the nearest or all known ones), or an incomplete configuration.
    """
    if not isinstance(model, str):
        if not {'embed_dim', 'vision_cfg'} <= set(model):
            raise UserError('a configuration of an open_clip model needs embed_dim and vision_cfg, '
                             f'got {sorted(model)}')
        return 'custom', {**model, 'vision_cfg': dict(model['vision_cfg'])}, {}
    package = require('open_clip', 'OpenCLIPTower')
    name = model_name(model, package.list_models(), kind='open_clip model', tower='OpenCLIPTower')
    tags = package.list_pretrained_tags_by_model(name)
    if pretrained is None:
        pretrained = PREFERRED_TAGS.get(name, tags[0] if tags else None)
    elif pretrained not in tags:
        raise UnknownName(f'open_clip has no weights {pretrained!r} of {name}; it has {tags}')
    description = package.get_pretrained_cfg(name, pretrained) if pretrained else {}
    return f'{name}/{pretrained}' if pretrained else name, package.get_model_config(name), description


def published_file(key: str, config: Mapping[str, Any], description: Mapping[str, Any]) -> WeightFile | None:
    """The file with the weights that open_clip's description names; None if there is none."""
    if description.get('url'):
        url = description['url']
    elif description.get('hf_hub'):
        repository, _, file = description['hf_hub'].rpartition('/')
        host = os.environ.get('HF_ENDPOINT', 'https://huggingface.co')
        url = f'{host}/{repository}/resolve/main/{file or "open_clip_model.safetensors"}'
    else:
        return None
    return WeightFile(url, _megabytes(config), 'see there',
                      name=f'open_clip_{key.replace("/", ".")}{Path(url).suffix}')


def _megabytes(config: Mapping[str, Any]) -> int:
    """Rough size of a whole model in fp32, from its text encoder's sizes; the image encoder counts as much."""
    text = config.get('text_cfg', {})
    width = text.get('width', 512)
    parameters = text.get('vocab_size', 49408) * width + text.get('layers', 12) * 12 * width**2
    return round(2 * parameters * 4 / 1e6)


def build_visual(config: Mapping[str, Any], quick_gelu: bool) -> nn.Module:
    """The image network of a configuration, in open_clip's key names without `visual.`.

    Plain ViTs and ResNets are frozenmm's own networks (masked class tokens, any resolution); others are open_clip's.
    """
    vision = config['vision_cfg']
    layers, width, output_dim = vision.get('layers', 12), vision.get('width', 768), config['embed_dim']
    head_width, resolution = vision.get('head_width', 64), vision.get('image_size', 224)
    if isinstance(layers, list | tuple):
        return ModifiedResNet(cast(Any, tuple(layers)), output_dim, width * 32 // head_width, resolution, width)
    if 'timm_model_name' not in vision and set(vision) <= _OWN_VIT:
        return CLIPVisionTransformer(resolution, vision.get('patch_size', 16), width, layers, width // head_width,
                                     output_dim, mlp_ratio=vision.get('mlp_ratio', 4.0),
                                     activation='quick_gelu' if quick_gelu else 'gelu')
    build = require('open_clip.model', 'OpenCLIPTower')._build_vision_tower
    visual = build(output_dim, vision, quick_gelu)
    if 'timm_model_name' in vision:
        return TimmVisual(visual.trunk, visual.head, output_dim)
    return OpenCLIPViT(visual)


def visual_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's weights of a whole file, without `visual.`; an image encoder alone passes through."""
    part = {key[len('visual.'):]: value for key, value in state.items() if key.startswith('visual.')}
    return part or state


@MODELS.register_module()
class OpenCLIPTower(ImageTower):
    """An image encoder of open_clip.

    ConvNeXt and ResNet give res2..res5 and `'clip_vis_dense'` (what the head pools), ViTs `'patch'`.

    Args:
        model: open_clip's name, or a configuration (`embed_dim`, `vision_cfg`).
        weights: path of a file of the whole model or its image encoder; None for the published ones; `'random'`.
        pretrained: tag of the published weights; also decides normalisation and activation when `weights` is a path.
        patch_output: `'raw'`, `'normed'` (ViT) or `'projected'` (joint space; for convolutional networks an additional
            map `'patch'`).
        precision: see `FrozenModule`.
        **options: of `ImageTower`.
    """

    def __init__(self, model: str | Mapping[str, Any] = 'convnext_large_d_320', weights: str | Path | None = None, *,
                 pretrained: str | None = None, patch_output: str = 'raw', precision: str = 'fp32',
                 **options: Unpack[TowerOptions]) -> None:
        choice('patch_output', patch_output, PATCH_OUTPUTS)
        key, config, description = open_clip_model(model, pretrained)
        quick_gelu = bool(config.get('quick_gelu', description.get('quick_gelu', False)))
        name = f'open_clip {key}{weights_note(weights)}'
        file = published_file(key, config, description)

        def build() -> nn.Module:
            # not on the meta device: timm's networks compute some values from their weights when built
            return build_network(lambda: build_visual(config, quick_gelu), weights, file, name=name,
                                 select=visual_part, on_meta=False)

        network = shared_network(('open_clip', key, repr(config), quick_gelu, weights_key(weights)), build, name=name,
                                 precision=precision)
        visual = cast(TimmVisual, network.module)
        channels, strides = _maps(visual, patch_output, name)
        super().__init__(network, input=_input(visual, config, description, options.get('resize_mode'),
                                               options.get('size'), name),
                         channels=channels, strides=strides,
                         token_channels=getattr(visual, 'token_channels', visual.output_dim),
                         blocks=getattr(visual, 'blocks', None) or vit_blocks(visual), **options)
        self.patch_output = patch_output

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`. ViTs other than CLIP's have no image tokens but means of patches."""
        maps, tokens, *embedding = network(pixels, max(num_tokens, 1), self.patch_output,
                                            *([self.taps] if self.taps else []))
        if isinstance(self.network, ModifiedResNet):
            maps = {**maps, DENSE: maps['res5']}
        return RawFeatures(maps=maps, tokens=tokens, class_token=embedding[0] if embedding else tokens[:, 0])

    def visual_prediction(self, pooled: Tensor) -> Tensor:
        """Pooled dense features in the joint space (FC-CLIP); a ResNet pools by `network.attnpool.pool_masks` instead.

        Args:
            pooled: (..., C), means of `'clip_vis_dense'` (ConvNeXt) or of the raw `'patch'` map (ViT).

        Returns:
            (..., D) float32, not normalised.

        Raises:
            WrongKind: the network is a ResNet.
        """
        if not hasattr(self.network, 'project'):
            raise TypeError(f'{self.name} pools by attention: use `network.attnpool.pool_masks(map, masks)`')
        return self.run(lambda network, x: cast(TimmVisual, network).project(x), pooled)


def _maps(visual: nn.Module, patch_output: str, name: str) -> tuple[dict[str, int], dict[str, int]]:
    """Channels and strides of the maps under an option."""
    network = cast(TimmVisual, visual)
    channels, strides = dict(network.channels), dict(network.strides)
    if isinstance(visual, ModifiedResNet):
        channels[DENSE], strides[DENSE] = channels['res5'], strides['res5']
    is_vit = 'patch' in channels
    if patch_output == 'normed' and not is_vit:
        raise UserError(f"patch_output='normed' needs a ViT; {name} has 'raw' and 'projected'")
    if patch_output == 'projected':
        if is_vit and not isinstance(visual, CLIPVisionTransformer):
            raise UserError(f"{name} pools before it projects, so it has no patch_output='projected'")
        channels['patch'], strides['patch'] = network.output_dim, max(strides.values())
    return channels, strides


def _input(visual: nn.Module, config: Mapping[str, Any], description: Mapping[str, Any], resize_mode: str | None,
           size: int | None, name: str) -> TowerInput:
    """What the network expects; refuses other sizes where it is built for one."""
    native = config['vision_cfg'].get('image_size', 224)
    native = native if isinstance(native, int) else native[0]
    if getattr(visual, 'fixed_size', False) and (resize_mode == 'none' or size not in (None, native)):
        raise UserError(f'{name} is built for inputs of {native} pixels; use size={native} and a resize_mode other '
                         "than 'none'")
    network = cast(TimmVisual, visual)
    mean, std = description.get('mean'), description.get('std')
    stats = STATS if not mean or not std else ImageStats(cast(Any, tuple(255.0 * value for value in mean)),
                                                         cast(Any, tuple(255.0 * value for value in std)))
    patch = getattr(visual, 'patch', max(network.strides.values()))
    interpolation = description.get('interpolation', 'bicubic')
    return TowerInput(stats, native, patch, interpolation if interpolation in ('bicubic', 'bilinear') else 'bicubic')
