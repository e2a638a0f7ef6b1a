"""Image encoders of the transformers library as frozen towers. Weights: each under the licence of its model card."""
from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.errors import UserError, reading
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.hf_model import load_hf_model, stored_file
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.dinov2 import IMAGENET_STATS
from frozenmm.foundation.image_towers.timm_reader import level_name
from frozenmm.foundation.lookup import choice
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

_NORMS = ('layernorm', 'norm', 'post_layernorm', 'rms_norm', 'layer_norm', 'pooler.layernorm')
"""Where models keep their last norm; behind the mean of the patches it is part of the pooler."""
_SIDE = 224
"""Where a config gives no size: networks that take any."""


class HFVision(nn.Module):
    """An encoder of transformers whose forward gives `({name: map}, class token or None)`.

    Attributes:
        side: of the input in pixels that the model was made for.
        patch: input sides must be multiples of it.
        blocks: number and width of the blocks of a plain ViT, None for hierarchical networks.
        channels: width of every map.
        strides: stride of every map.
        has_class_token: whether the first token of the last layer stands for the whole image.

    Args:
        model: the encoder; of a pair with a text encoder its image part.

    Raises:
        UserError: the model does not take images alone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = getattr(model, 'vision_model', model)
        takes = inspect.signature(self.model.forward).parameters
        config = cast(Any, self.model).config
        required = {name for name, value in takes.items()
                    if value.default is value.empty and value.kind is value.POSITIONAL_OR_KEYWORD}
        if 'pixel_values' not in takes or required - {'pixel_values'}:
            raise UserError(f'a transformers model of type {config.model_type!r} takes {sorted(required)}; HFTower '
                            'reads image encoders, which take pixel_values alone')
        self._options = {'output_hidden_states': True}
        if 'interpolate_pos_encoding' in takes:
            self._options['interpolate_pos_encoding'] = True
        side = getattr(config, 'image_size', None) or _SIDE
        self.side = side if isinstance(side, int) else int(side[0])
        with torch.no_grad():
            levels, final = self._read(torch.zeros(1, 3, self.side, self.side))
        self.is_plain = final.dim() == 3 and len({level.shape for level in levels}) == 1
        patch = config.patch_size if self.is_plain else 0
        self.patch = patch if isinstance(patch, int) else int(patch[0])
        if self.is_plain:
            self.channels, self.strides = {'patch': final.shape[-1]}, {'patch': self.patch}
            cells = (self.side // self.patch)**2
        else:
            maps = self._maps(levels)
            self.strides = {name: self.side // value.shape[-1] for name, value in maps.items()}
            self.channels = {name: value.shape[1] for name, value in maps.items()}
            self.patch, cells = max(self.strides.values()), levels[-1].shape[-2:].numel()
        self.has_class_token = final.dim() == 3 and final.shape[1] > cells
        self.blocks = (len(levels) - 1, final.shape[-1]) if self.is_plain else None

    @property
    def norm(self) -> nn.Module:
        """The last norm; where there is none, what changes nothing."""
        for name in _NORMS:
            norm: Any = self.model
            for part in name.split('.'):
                norm = getattr(norm, part, None)
            if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
                return norm
        return nn.Identity()

    def _read(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        """Sequences (B, T, C) or maps (B, C, h, w) behind every layer, the input first, and the model's own output."""
        result = self.model(pixel_values=pixels, **self._options)
        states, maps = result.hidden_states, result.get('reshaped_hidden_states')
        if maps is not None:  # some models give them channels last
            states = [value.movedim(-1, 1) if value.shape[-1] == state.shape[-1] != value.shape[1] else value
                      for state, value in zip(states, maps)]
        return list(states), result.last_hidden_state

    def _maps(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """The deepest map of every stride."""
        found = {self.side // level.shape[-1]: level for level in levels if level.shape[-1] < self.side}
        return {level_name(stride): found[stride] for stride in sorted(found)}

    def forward(self, pixels: Tensor, normed: bool = True,
                taps: Sequence[int] = ()) -> tuple[dict[str, Tensor], Tensor | None]:
        """Maps, taps and class token of (B, 3, h, w); arguments as those of `TimmReader.forward`."""
        levels, final = self._read(pixels)
        class_token = final[:, 0] if self.has_class_token else None
        if not self.is_plain:
            sizes = {level.shape[-1]: level for level in levels if level.shape[-1] < pixels.shape[-1]}
            maps = dict(zip(self.channels, (sizes[width] for width in sorted(sizes, reverse=True))))
            last = next(reversed(maps))
            if normed:
                maps[last] = self.norm(maps[last].movedim(1, -1)).movedim(-1, 1)
            return maps, class_token
        grid = [side // self.patch for side in pixels.shape[-2:]]
        last_layer = self.norm(levels[-1]) if normed else levels[-1]
        if class_token is not None:
            class_token = last_layer[:, 0]
        patches = last_layer[:, -grid[0] * grid[1]:].transpose(1, 2).unflatten(2, grid)
        return {'patch': patches, **{f'tap{index}': self.norm(levels[index + 1]) for index in taps}}, class_token


def hf_input(source: str, network: HFVision, *, offline: bool) -> TowerInput:
    """What the network expects, as its `preprocessor_config.json` says; ImageNet's statistics without one."""
    path = stored_file(source, 'preprocessor_config.json', part='HFTower', offline=offline)
    given: dict[str, Any] = {}
    if path is not None:
        with reading(path, 'the preprocessing of an image encoder', 'fetch the folder again'):
            given = dict(json.loads(Path(path).read_text(encoding='utf-8')))
    stats = IMAGENET_STATS
    with reading(path or source, 'the preprocessing of an image encoder', 'fetch the folder again'):
        if not given.get('do_normalize', True):
            stats = ImageStats((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
        elif 'image_mean' in given:
            mean, std = (tuple(255.0 * float(value) for value in given[key]) for key in ('image_mean', 'image_std'))
            stats = ImageStats(cast(Any, mean), cast(Any, std))
    size = max(network.patch, network.side // network.patch * network.patch)
    return TowerInput(stats, size, network.patch, 'bicubic' if given.get('resample', 3) == 3 else 'bilinear')


@MODELS.register_module()
class HFTower(ImageTower):
    """Any image encoder of the transformers library: ViTs, Swin, ConvNeXt, Hiera, the image parts of CLIP and SigLIP.

    A plain ViT gives the map `'patch'`, taps, and a class token where it has one; other networks give maps named by
    stride, res2..res5. `DINOv3Tower`, `CLIPTower` and `TimmTower` read the same weights in other layouts.

    Args:
        folder: holds config.json and the weights; or a model's name on the hub that the hub's client has stored on this
            machine (`'facebook/dinov2-small'`).
        patch_output: `'normed'` or `'raw'` (before the final norm).
        allow_network: let transformers fetch what is not on this machine; without it nothing is ever fetched.
        precision: see `FrozenModule`.
        **options: of `ImageTower`.

    Raises:
        MissingFile: no such folder, and no model of this name on this machine.
        UserError: damaged files, or a model that does not take images alone.
        MissingPackage: transformers is not installed.
    """

    def __init__(self, folder: str | Path, *, patch_output: str = 'normed', allow_network: bool = False,
                 precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        choice('patch_output', patch_output, ('normed', 'raw'))
        path = Path(folder).expanduser()
        source = str(path.absolute()) if path.is_dir() else str(folder)
        stored_file(source, 'config.json', part='HFTower', offline=not allow_network)

        def build() -> HFVision:
            return HFVision(load_hf_model(source, offline=not allow_network, what='an image encoder', part='HFTower',
                                          unused='pooler.dense.'))

        network = shared_network(('hf-tower', source), build, name=f'transformers {Path(source).name}',
                                 precision=precision)
        module = cast(HFVision, network.module)
        super().__init__(network, input=hf_input(source, module, offline=not allow_network), channels=module.channels,
                         strides=module.strides, blocks=module.blocks,
                         token_channels=next(reversed(module.channels.values())), **options)
        self.normed = patch_output == 'normed'

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`. Only one image token is a class token; more are means of patches."""
        maps, class_token = network(pixels, self.normed, self.taps or ())
        tokens = class_token[:, None] if class_token is not None and num_tokens == 1 else None
        return RawFeatures(maps=maps, tokens=tokens, class_token=class_token)
