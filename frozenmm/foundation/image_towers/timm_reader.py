"""Maps and class token of any timm model, by one forward with one signature."""
from __future__ import annotations

import inspect
import math
from typing import Any, cast

from torch import Tensor, nn


def _level(stride: int) -> str:
    """`'res2'` for stride 4, and so on; `'stride14'` where the stride is no power of two."""
    return f'res{stride.bit_length() - 1}' if stride & (stride - 1) == 0 else f'stride{stride}'


class TimmReader(nn.Module):
    """A timm model whose forward gives `({name: map}, class token or None)`.

    Attributes:
        is_plain: one stride throughout (plain ViT).
        channels: width of every map.
        strides: stride of every map.
        patch: input sides must be multiples of it.
        fixed_size: the network only takes the size that it was built for.
        token_channels: width of the class token, None without one.

    Args:
        trunk: the model, without classifier.

    Raises:
        ValueError: the model can give no intermediate maps.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        if not hasattr(trunk, 'forward_intermediates'):
            raise ValueError(f'timm\'s {type(trunk).__name__} gives no intermediate maps (no `forward_intermediates`); '
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
            names = [_level(strides[index]) for index in self.indices]
        self.channels = {key: int(levels[index]['num_chs']) for key, index in zip(names, self.indices)}
        self.strides = {key: strides[index] for key, index in zip(names, self.indices)}
        config = model.pretrained_cfg
        self.fixed_size = not getattr(trunk, 'dynamic_img_size', False) and bool(config.get('fixed_input_size'))
        self.patch = math.gcd(max(strides), int(config['input_size'][-1])) if self.fixed_size else max(strides)
        arguments = inspect.signature(model.forward_intermediates).parameters
        self.has_class_token = (self.is_plain and 'return_prefix_tokens' in arguments
                                and getattr(trunk, 'cls_token', None) is not None)
        self.token_channels = self.channels['patch'] if self.has_class_token else None

    def forward(self, pixels: Tensor, normed: bool = True) -> tuple[dict[str, Tensor], Tensor | None]:
        """Maps and class token of (B, 3, h, w).

        Args:
            pixels: the normalised image.
            normed: for a plain ViT, patches and class token after the final norm.
        """
        read = cast(Any, self.trunk).forward_intermediates
        if not self.is_plain:
            maps = read(pixels, indices=self.indices, intermediates_only=True)
            return dict(zip(self.channels, maps)), None
        if not self.has_class_token:
            return {'patch': read(pixels, indices=self.indices, norm=normed, intermediates_only=True)[-1]}, None
        patches, prefix = read(pixels, indices=self.indices, norm=normed, intermediates_only=True,
                               return_prefix_tokens=True)[-1]
        return {'patch': patches}, prefix[:, 0]
