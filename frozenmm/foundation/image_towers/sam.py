"""The image encoders of SAM (ViT) and MobileSAM (TinyViT) as frozen towers. Weights: both Apache-2.0."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.dinov2 import IMAGENET_STATS
from frozenmm.foundation.image_towers.doors import model_name
from frozenmm.foundation.image_towers.sam_vit import ImageEncoderViT, SAMSizes
from frozenmm.foundation.image_towers.tiny_vit_network import TinyViT
from frozenmm.foundation.lookup import require_known
from frozenmm.foundation.weights import WeightFile, build_network, weights_key, weights_note
from frozenmm.registry import MODELS

_SAM_FILES = 'https://dl.fbaipublicfiles.com/segment_anything'
SAM_MODELS: dict[str, tuple[dict[str, Any], WeightFile]] = {
    'vit_b': (dict(embed_dim=768, depth=12, num_heads=12, global_attn_indexes=(2, 5, 8, 11)),
              WeightFile(f'{_SAM_FILES}/sam_vit_b_01ec64.pth', 375, 'Apache-2.0', '01ec64')),
    'vit_l': (dict(embed_dim=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23)),
              WeightFile(f'{_SAM_FILES}/sam_vit_l_0b3195.pth', 1249, 'Apache-2.0', '0b3195')),
    'vit_h': (dict(embed_dim=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31)),
              WeightFile(f'{_SAM_FILES}/sam_vit_h_4b8939.pth', 2564, 'Apache-2.0', '4b8939')),
}
"""Sizes and the official file, whose name ends in the first digits of its hash."""
MOBILE_SAM_WEIGHTS = WeightFile('https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/master/weights/mobile_sam.pt',
                                41, 'Apache-2.0')
DEFAULT_MAPS = ('neck', )
_CLASSIFIER = ('norm_head.', 'head.')


def encoder_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's weights of a whole SAM file, without `image_encoder.` and without TinyViT's classifier."""
    prefix = 'image_encoder.'
    part = {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)} or state
    return {key: value for key, value in part.items()
            if not key.startswith(_CLASSIFIER) and not key.endswith('attention_bias_idxs')}


class _EncoderTower(ImageTower):
    """What both families share: input, default map and reading.

    Args:
        key: what decides the network among shared ones.
        make: builds it.
        file: the published weights.
        weights: see `build_network`.
        name: what errors call the tower.
        precision: see `FrozenModule`.
        **options: of `ImageTower`.
    """

    def __init__(self, key: tuple, make: Callable[[dict[str, Any]], nn.Module], sizes: dict[str, Any],
                 file: WeightFile | None, weights: str | Path | None, *, name: str, precision: str,
                 **options: Unpack[TowerOptions]) -> None:
        name += weights_note(weights)
        network = shared_network(
            (*key, tuple(sorted(sizes.items())), weights_key(weights), file),
            lambda: build_network(lambda: make(sizes), weights, file, name=name, select=encoder_part),
            name=name, precision=precision)
        module = cast(ImageEncoderViT, network.module)
        tower_input = TowerInput(IMAGENET_STATS, module.img_size, max(module.strides.values()), 'bilinear')
        options = {'resize_mode': 'pad', 'out_maps': DEFAULT_MAPS, **options}
        super().__init__(network, input=tower_input, channels=module.channels, strides=module.strides,
                         blocks=(len(module.blocks), module.embed_dim) if hasattr(module, 'blocks') else None,
                         **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`. There is no class token; image tokens are means of the last map's cells."""
        maps = network(pixels, self.taps) if self.taps else network(pixels)
        return RawFeatures(maps={key: value for key, value in maps.items() if key in self.channels or 'tap' in key})


def _hashable(sizes: Mapping[str, object]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}


@MODELS.register_module()
class SAMTower(_EncoderTower):
    """SAM's image encoder: the map `'neck'` (256 channels, stride 16) and, if asked, `'global1'`..`'global4'`.

    Args:
        model: `'vit_b'`, `'vit_l'`, `'vit_h'`, or a dict of `SAMSizes`.
        weights: path of an official file; None for the published one; `'random'`.
        precision: see `FrozenModule`.
        **options: of `ImageTower`; `resize_mode` is `'pad'` by default and `out_maps` `('neck',)`. Sizes other than
            1024 resize the position tables.
    """

    def __init__(self, model: str | Mapping[str, object] = 'vit_b', weights: str | Path | None = None, *,
                 precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        sizes, file, name = _hashable(model) if not isinstance(model, str) else {}, None, 'custom'
        if isinstance(model, str):
            name = model_name(model.lower().removeprefix('sam_'), SAM_MODELS, kind='SAM model', tower='SAMTower')
            sizes, file = SAM_MODELS[name]
        require_known(sizes, SAMSizes.__annotations__, 'size of a SAM encoder')
        super().__init__(('SAM', ), lambda sizes: ImageEncoderViT(SAMSizes(**sizes)), sizes, file, weights,
                         name=f'SAM {name}', precision=precision, **options)


@MODELS.register_module()
class MobileSAMTower(_EncoderTower):
    """MobileSAM's TinyViT: the map `'neck'` (256 channels, stride 16) and, if asked, `'stage1'`..`'stage3'`.

    Args:
        weights: path of the official file `mobile_sam.pt`; None for the published one; `'random'`.
        model: a dict of arguments of `TinyViT`, for other sizes.
        precision: see `FrozenModule`.
        **options: of `ImageTower`, with the defaults of `SAMTower`.
    """

    def __init__(self, weights: str | Path | None = None, *, model: Mapping[str, object] | None = None,
                 precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        file = MOBILE_SAM_WEIGHTS if model is None else None
        super().__init__(('MobileSAM', ), lambda sizes: TinyViT(**sizes), _hashable(model or {}), file, weights,
                         name='MobileSAM TinyViT', precision=precision, **options)
