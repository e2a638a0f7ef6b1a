"""OpenAI's CLIP image encoders as frozen towers."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.errors import UserError
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.clip_resnet import ModifiedResNet
from frozenmm.foundation.image_towers.clip_vit import PATCH_OUTPUTS, CLIPVisionTransformer
from frozenmm.foundation.image_towers.doors import model_name
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.weights import WeightFile, build_network, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

STATS = ImageStats((122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.32316305))
"""CLIP's channel means and deviations times 255."""
_ORIGIN = 'https://openaipublic.azureedge.net/clip/models'


@dataclass(frozen=True)
class CLIPModel:
    """Sizes of a published model; `patch` 0 means a ResNet. Weights: OpenAI, MIT licence."""

    resolution: int
    width: int
    layers: int | tuple[int, int, int, int]
    heads: int
    output_dim: int
    patch: int
    sha256: str = ''
    megabytes: int = 0
    file: str = ''

    @property
    def weights(self) -> WeightFile:
        """The published file (a TorchScript archive with image and text encoder)."""
        return WeightFile(f'{_ORIGIN}/{self.sha256}/{self.file}', self.megabytes, 'MIT', self.sha256)

    def build(self) -> CLIPVisionTransformer | ModifiedResNet:
        """The image network."""
        if isinstance(self.layers, tuple):
            return ModifiedResNet(self.layers, self.output_dim, self.heads, self.resolution, self.width)
        return CLIPVisionTransformer(self.resolution, self.patch, self.width, self.layers, self.heads, self.output_dim)


MODELS_BY_NAME = {
    'ViT-B/32': CLIPModel(224, 768, 12, 12, 512, 32,
                          '40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af', 354, 'ViT-B-32.pt'),
    'ViT-B/16': CLIPModel(224, 768, 12, 12, 512, 16,
                          '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f', 351, 'ViT-B-16.pt'),
    'ViT-L/14': CLIPModel(224, 1024, 24, 16, 768, 14,
                          'b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836', 933, 'ViT-L-14.pt'),
    'ViT-L/14@336px': CLIPModel(336, 1024, 24, 16, 768, 14,
                                '3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02', 934,
                                'ViT-L-14-336px.pt'),
    'RN50': CLIPModel(224, 64, (3, 4, 6, 3), 32, 1024, 0,
                      'afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762', 256, 'RN50.pt'),
    'RN101': CLIPModel(224, 64, (3, 4, 23, 3), 32, 512, 0,
                       '8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599', 292, 'RN101.pt'),
    'RN50x4': CLIPModel(288, 80, (4, 6, 10, 6), 40, 640, 0,
                        '7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd', 422, 'RN50x4.pt'),
    'RN50x16': CLIPModel(384, 96, (6, 8, 18, 8), 48, 768, 0,
                         '52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa', 661, 'RN50x16.pt'),
    'RN50x64': CLIPModel(448, 128, (3, 15, 36, 10), 64, 1024, 0,
                         'be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c', 1325, 'RN50x64.pt'),
}
_ALIASES = {'ViT-L/14-336': 'ViT-L/14@336px'}
_CUSTOM = ('input_resolution', 'patch_size', 'width', 'layers', 'heads', 'output_dim')


def clip_model(model: str | Mapping[str, object]) -> tuple[str, CLIPModel]:
    """Name and sizes of a CLIP model.

    Args:
        model: a published name, or the sizes input_resolution, patch_size (not for a ResNet, whose `layers` are four
            numbers), width, layers, heads, output_dim.

    Raises:
        UserError: unknown name (with the nearest ones), or sizes missing or unknown.
    """
    if isinstance(model, str):
        name = model_name(model, [*MODELS_BY_NAME, *_ALIASES], kind='CLIP model', tower='CLIPTower')
        name = _ALIASES.get(name, name)
        return name, MODELS_BY_NAME[name]
    layers = model.get('layers')
    is_resnet = not isinstance(layers, int)
    expected = {key for key in _CUSTOM if not (is_resnet and key == 'patch_size')}
    if set(model) != expected:
        raise UserError(f'sizes of a CLIP model are {sorted(expected)}, got {sorted(model)}')
    sizes: dict[str, Any] = {**model, 'layers': tuple(layers) if isinstance(layers, list | tuple) else layers}
    return 'custom', CLIPModel(sizes['input_resolution'], sizes['width'], sizes['layers'], sizes['heads'],
                               sizes['output_dim'], sizes.get('patch_size', 0))


def image_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's weights of a whole CLIP file, without `visual.`; an image encoder alone passes through."""
    part = {key[len('visual.'):]: value for key, value in state.items() if key.startswith('visual.')}
    return part or state


def vit_blocks(network: nn.Module) -> tuple[int, int] | None:
    """Number and width of the blocks of a CLIP ViT; None for other networks, which give no taps."""
    if not isinstance(network, CLIPVisionTransformer):
        return None
    return len(network.transformer.resblocks), network.conv1.out_channels


@MODELS.register_module()
class CLIPTower(ImageTower):
    """An image encoder of OpenAI's CLIP.

    A ViT gives the map `'patch'` (by default the last block's raw output, as Frozen-DETR takes it), a ResNet
    res2..res5. Image tokens are masked class tokens (ViT) or attention pools of cells (ResNet), in CLIP's joint space.

    Args:
        model: `'ViT-B/32'`, `'ViT-B/16'`, `'ViT-L/14'`, `'ViT-L/14@336px'`, `'RN50'`, `'RN101'`, `'RN50x4'`,
            `'RN50x16'`, `'RN50x64'`, or a dict of sizes (see `clip_model`).
        weights: path of an official file (TorchScript) or a state dict; None for the published file; `'random'`.
        patch_output: `'raw'`, `'normed'` (after the final norm) or `'projected'` (joint space; for a ResNet an
            additional map `'patch'`).
        precision: see `FrozenModule`.
        **options: of `ImageTower`.
    """

    def __init__(self, model: str | Mapping[str, object] = 'ViT-L/14@336px', weights: str | Path | None = None, *,
                 patch_output: str = 'raw', precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        choice('patch_output', patch_output, PATCH_OUTPUTS)
        key, sizes = clip_model(model)
        if patch_output == 'normed' and not sizes.patch:
            raise UserError("patch_output='normed' needs a ViT; a CLIP ResNet has 'raw' and 'projected'")
        name = f'CLIP {key}{weights_note(weights)}'
        network = shared_network(
            ('CLIP', sizes, weights_key(weights)),
            lambda: build_network(sizes.build, weights, sizes.weights if sizes.file else None, name=name,
                                  select=image_part),
            name=name, precision=precision)
        module = cast(CLIPVisionTransformer, network.module)
        channels, strides = module.channels, module.strides
        if patch_output == 'projected':
            channels['patch'], strides['patch'] = sizes.output_dim, sizes.patch or 32
        super().__init__(network, input=TowerInput(STATS, sizes.resolution, sizes.patch or 32), channels=channels,
                         strides=strides, token_channels=sizes.output_dim, blocks=vit_blocks(module), **options)
        self.patch_output = patch_output

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`."""
        maps, tokens = network(pixels, max(num_tokens, 1), self.patch_output, *([self.taps] if self.taps else []))
        return RawFeatures(maps=maps, tokens=tokens, class_token=tokens[:, 0])
