"""Maps and class token of any timm model, by one forward with one signature."""
from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import cell_means

DENSE = 'clip_vis_dense'
LAST_NORMS = ('norm', 'fc_norm')


def level_name(stride: int) -> str:
    """`'res2'` for stride 4, and so on; `'stride14'` where the stride is no power of two."""
    return f'res{stride.bit_length() - 1}' if stride & (stride - 1) == 0 else f'stride{stride}'


class TimmReader(nn.Module):
    """A timm model whose forward gives `({name: map}, class token or None)`.

    Attributes:
        is_plain: one stride throughout (plain ViT).
        channels: width of every map.
        strides: stride of every map.
        last_norm: name of the final norm, None without one.
        patch: input sides must be multiples of it.
        fixed_size: the network only takes the size that it was built for.
        token_channels: width of the class token, None without one.

    Args:
        trunk: the model, without classifier.

    Raises:
        UserError: the model can give no intermediate maps.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        if not hasattr(trunk, 'forward_intermediates'):
            raise UserError(f'timm\'s {type(trunk).__name__} gives no intermediate maps (no `forward_intermediates`); '
                             'choose another model')
        self.trunk = trunk
        model: Any = trunk
        levels = list(model.feature_info)
        strides = [int(level['reduction']) for level in levels]
        self.is_plain = len(set(strides)) == 1
        if self.is_plain:
            self.indices, names = [len(levels) - 1], ['patch']
        else:
            last = {stride: index for index, stride in enumerate(strides)}  # the deepest map of each stride
            self.indices = sorted(last.values())
            names = [level_name(strides[index]) for index in self.indices]
        self.channels = {key: int(levels[index]['num_chs']) for key, index in zip(names, self.indices)}
        self.strides = {key: strides[index] for key, index in zip(names, self.indices)}
        config = model.pretrained_cfg
        self.fixed_size = not getattr(trunk, 'dynamic_img_size', False) and bool(config.get('fixed_input_size'))
        self.patch = math.gcd(max(strides), int(config['input_size'][-1])) if self.fixed_size else max(strides)
        arguments = inspect.signature(model.forward_intermediates).parameters
        self.gives_prefix = 'return_prefix_tokens' in arguments and bool(getattr(trunk, 'num_prefix_tokens', 0))
        self.has_class_token = (self.is_plain and 'return_prefix_tokens' in arguments
                                and getattr(trunk, 'cls_token', None) is not None)
        self.token_channels = self.channels['patch'] if self.has_class_token else None
        self.blocks = (len(levels), self.channels['patch']) if self.is_plain else None
        self.last_norm = next((name for name in LAST_NORMS if _is_norm(trunk, name)), None)

    def forward(self, pixels: Tensor, normed: bool = True,
                taps: Sequence[int] = ()) -> tuple[dict[str, Tensor], Tensor | None]:
        """Maps, taps and class token of (B, 3, h, w).

        Args:
            pixels: the normalised image.
            normed: a plain ViT's patches and class token after the final norm; so the last map of other networks that
                have a `norm` behind their last stage (Swin, MViT, ...).
            taps: blocks of a plain ViT whose whole sequence is wanted, after the final norm.
        """
        if self.is_plain:
            _, maps, class_token = self.read_plain(pixels, normed, taps)
            return maps, class_token
        norm = {'norm': True} if normed and self.last_norm == 'norm' else {}
        maps = cast(Any, self.trunk).forward_intermediates(pixels, indices=self.indices, intermediates_only=True,
                                                           **norm)
        return dict(zip(self.channels, maps)), None

    def read_plain(self, pixels: Tensor, normed: bool,
                   taps: Sequence[int]) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """What timm's `forward_features` gives, and maps, taps and class token of a plain ViT."""
        model: Any = self.trunk
        deepest = self.indices[-1]
        indices = sorted({*taps, deepest})
        prefixed = {'return_prefix_tokens': True} if self.gives_prefix else {}
        final, found = model.forward_intermediates(pixels, indices=indices, norm=False, **prefixed)
        grid = (found[0][0] if prefixed else found[0]).shape[-2:]
        sequences = {}
        for index, value in zip(indices, found):
            patches, prefix = value if prefixed else (value, None)
            parts = [patches.flatten(2).transpose(1, 2)]
            sequences[index] = torch.cat(parts if prefix is None else [prefix, *parts], 1)
        norm = final_norm(model)
        last = norm(sequences[deepest]) if normed else sequences[deepest]
        patches = last[:, last.shape[1] - grid.numel():].transpose(1, 2).unflatten(2, grid)
        maps = {'patch': patches, **{f'tap{index}': norm(sequences[index]) for index in taps}}
        return final, maps, last[:, 0] if self.has_class_token else None


def _is_norm(trunk: nn.Module, name: str) -> bool:
    norm = getattr(trunk, name, None)
    return isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity | nn.ModuleList)


def final_norm(trunk: nn.Module) -> nn.Module:
    """The last norm of a timm ViT: `fc_norm` where the model norms after pooling, else `norm`."""
    return next((getattr(trunk, name) for name in LAST_NORMS if _is_norm(trunk, name)), nn.Identity())


class TimmVisual(TimmReader):
    """The image part of an open_clip model with a timm trunk: trunk and projection into the joint space.

    Besides the trunk's maps, a convolutional trunk gives `'clip_vis_dense'`: what its head pools.

    Args:
        trunk: the timm model, without classifier.
        head: the projection.
        output_dim: channels of the joint space.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, output_dim: int) -> None:
        super().__init__(trunk)
        self.head = head
        self.output_dim = output_dim
        if not self.is_plain:
            last = next(reversed(self.channels))
            self.channels[DENSE], self.strides[DENSE] = int(cast(Any, trunk).num_features), self.strides[last]
        self.is_channels_last = str(getattr(trunk, 'output_fmt', 'NCHW')).endswith('NHWC')
        # a plain ViT pools in ways that cells do not have, so its image tokens are means of patches
        self.token_channels = None if self.is_plain else output_dim

    def project(self, pooled: Tensor) -> Tensor:
        """Pooled dense features (..., C) of a convolutional trunk in the joint space (..., output_dim)."""
        width = pooled.shape[-1]
        cells = pooled.reshape(-1, 1, 1, width) if self.is_channels_last else pooled.reshape(-1, width, 1, 1)
        return self.head(cast(Any, self.trunk).forward_head(cells)).view(*pooled.shape[:-1], -1)

    def forward(self, pixels: Tensor, num_tokens: int = 1,  # type: ignore[override]
                patch_output: str = 'raw',
                taps: Sequence[int] = ()) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """Maps, image tokens and the image's embedding.

        Args:
            pixels: (B, 3, h, w).
            num_tokens: 1, 5, 14 or 30.
            patch_output: `'raw'`, `'normed'` (plain ViT) or `'projected'` (convolutional trunk: an additional map
                `'patch'`, every cell in the joint space).
            taps: see `TimmReader.forward`.

        Returns:
            Maps, tokens (B, T, output_dim) (None for a plain ViT), and the embedding (B, output_dim).
        """
        trunk: Any = self.trunk
        if self.is_plain:
            final, maps, _ = self.read_plain(pixels, patch_output == 'normed', taps)
            return maps, None, self.head(trunk.forward_head(final))
        final, levels = trunk.forward_intermediates(pixels, indices=self.indices)
        maps = dict(zip(self.channels, levels))
        embedding = self.head(trunk.forward_head(final))
        maps[DENSE] = final.movedim(-1, 1) if self.is_channels_last else final
        if patch_output == 'projected':
            maps['patch'] = self.project(maps[DENSE].movedim(1, -1)).movedim(-1, 1)
        tokens = embedding[:, None] if num_tokens == 1 else self.project(cell_means(maps[DENSE], num_tokens))
        return maps, tokens, embedding
