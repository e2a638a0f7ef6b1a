"""A frozen block of a language model as a layer of a vision model, between two trained maps."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import UserError
from frozenmm.foundation.frozen_module import FrozenModule, shared_network
from frozenmm.foundation.language_blocks import LAYOUTS, BlockLayout, LanguageBlock, block_states, read_language_state
from frozenmm.foundation.lookup import require_known
from frozenmm.foundation.state_match import load_strictly
from frozenmm.foundation.text_towers.hf import embedded_minilm
from frozenmm.foundation.weights import random_seed, weights_key
from frozenmm.registry import MODELS

MINILM = 'minilm'
_OPTIONS = ('residual', 'rope', 'causal')
_SIZES = ('layout', 'width', 'heads', 'hidden')


class LanguageLayer(nn.Module):
    """The last blocks of a language model and the final norm, whose weight stays 1."""

    def __init__(self, layout: BlockLayout, width: int, heads: int, hidden: int, *, count: int = 1, rope: bool = False,
                 causal: bool = False) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(LanguageBlock(layout, width, heads, hidden, rope=rope, causal=causal)
                                    for _ in range(count))
        self.norm = layout.make_norm(width)  # Parity: the official loader copies blocks only, so its weight is 1

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, N, C) of tokens (B, N, C), and which of them may be looked at (B, N)."""
        for block in self.blocks:
            tokens = block(tokens, valid)
        return self.norm(tokens)


@MODELS.register_module()
class FrozenLLMBlock(BaseModule):
    """y = W2 norm(blocks(W1 x)): the last blocks of a language model, frozen, between two trained maps without bias.

    On tokens (B, N, C) or maps (B, C, H, W). Backbones of mmseg and mmdet take it as a plugin; as a neck see
    `FrozenLLMNeck`. Gradients go through the frozen blocks. The state dict holds the two maps and a record of the
    blocks, so a checkpoint that was trained with other weights is refused.

    Args:
        in_channels: C.
        weights: file or folder of a language model (LLaMA in its own layout or transformers', OPT, BERT), `'minilm'`
            for the embedded MiniLM, or `'random'` with `sizes`.
        heads: attention heads of the language model, which its weights do not tell; MiniLM's are known (12).
        count: how many of its last blocks.
        options: `residual` (a path around the blocks; False, as officially), `rope` and `causal` (False).
        sizes: `layout`, `width`, `heads` and `hidden` of a random block.
        window: side of the square windows, in cells, that a map is cut into; 0 attends over the whole map.
        checksum: what `checksum` must be, so that a run cannot start with other weights.
        precision: see `FrozenModule`.

    Attributes:
        checksum: sixteen hex digits of the blocks' weights.

    Raises:
        UserError: heads or sizes are missing, unknown options, weights that fit no layout or have another checksum.

    Source: LM4VisualEncoding (Pang et al., ICLR 2024), whose block is the last one of LLaMA-7B.
    """

    _abbr_ = 'frozen_llm_block'

    def __init__(self, in_channels: int, weights: str | Path = MINILM, *, heads: int | None = None, count: int = 1,
                 options: Mapping[str, bool] | None = None, sizes: Mapping[str, Any] | None = None, window: int = 0,
                 checksum: str | None = None, precision: str = 'fp32') -> None:
        super().__init__()
        given = dict(options or {})
        require_known(given, _OPTIONS, 'option of FrozenLLMBlock')
        self.residual, self.window = given.pop('residual', False), window
        name = f'the last {count} blocks of {Path(weights).name}'
        if weights == MINILM:
            weights, heads = embedded_minilm(), 12
        key = ('LanguageLayer', weights_key(weights), heads, count, repr(sizes), *sorted(given.items()))
        network = shared_network(key, lambda: _build(weights, heads, sizes, count, given), name=name,
                                 precision=precision)
        self.layer = FrozenModule(network, gradient='through')
        width = cast(LanguageLayer, network.module).width
        if checksum is not None and checksum != self.checksum:
            raise UserError(f'{name} has the checksum {self.checksum}, but {checksum} was asked for; give the weights '
                            'that it belongs to, or leave checksum out')
        self.enter, self.leave = nn.Linear(in_channels, width, bias=False), nn.Linear(width, in_channels, bias=False)
        for linear in (self.enter, self.leave):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def init_weights(self) -> None:
        """Nothing: both maps are drawn as officially, with a deviation of 0.02."""

    @property
    def checksum(self) -> str:
        """See above."""
        return self.layer.fingerprint

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) or a map (B, C, H, W) to the same shape, float32."""
        if x.dim() == 3:
            return self._layer(x, None)
        height, width = x.shape[-2:]
        side = (self.window, self.window) if self.window else (height, width)
        bottom, right = -height % side[0], -width % side[1]
        tokens, valid = _cut(F.pad(x, (0, right, 0, bottom)), side), None
        if bottom or right:
            valid = _cut(F.pad(x.new_ones(len(x), 1, height, width), (0, right, 0, bottom)), side)[..., 0] > 0
        return _joined(self._layer(tokens, valid), side, (height + bottom, width + right))[..., :height, :width]

    def _layer(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        y = self.leave(self.layer.run(lambda network, x: network(x, valid), self.enter(tokens)))
        return tokens + y if self.residual else y


def _build(weights: str | Path, heads: int | None, sizes: Mapping[str, Any] | None, count: int,
           options: Mapping[str, bool]) -> LanguageLayer:
    seed = random_seed(weights)
    if seed is not None:
        if sizes is None or set(sizes) != set(_SIZES) or sizes['layout'] not in LAYOUTS:
            raise UserError(f'a random block needs sizes with {list(_SIZES)}, layout one of {list(LAYOUTS)}; got '
                            f'{sizes}')
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LanguageLayer(LAYOUTS[sizes['layout']], sizes['width'], sizes['heads'], sizes['hidden'],
                                 count=count, **options)
    source = Path(weights).expanduser()
    kind, states = block_states(read_language_state(source), str(source), count=count)
    if heads is None:
        raise UserError(f'the weights in {source} do not tell the number of attention heads; give heads=')
    hidden, width = states[0]['up.weight'].shape
    with torch.device('meta'):
        layer = LanguageLayer(LAYOUTS[kind], width, heads, hidden, count=count, **options)
    state = {f'blocks.{number}.{key}': value for number, part in enumerate(states) for key, value in part.items()}
    norm = LAYOUTS[kind].make_norm(width).state_dict()
    load_strictly(layer, {**state, **{f'norm.{key}': value for key, value in norm.items()}},
                  name=f'a block of the layout {kind}', source=str(source))
    return layer


def _cut(x: Tensor, side: tuple[int, int]) -> Tensor:
    """(B, C, H, W) to windows (B * n, side0 * side1, C)."""
    x = x.unflatten(3, (-1, side[1])).unflatten(2, (-1, side[0]))  # B, C, rows, side0, columns, side1
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, side[0] * side[1], x.shape[1])


def _joined(tokens: Tensor, side: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Windows back to (B, C, *size)."""
    x = tokens.view(-1, size[0] // side[0], size[1] // side[1], *side, tokens.shape[-1])
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), tokens.shape[-1], *size)


@MODELS.register_module()
class FrozenLLMNeck(BaseModule):
    """A frozen language block on one map of a backbone, before another neck or none.

    Args:
        in_channels: widths of the backbone's maps.
        block: options of `FrozenLLMBlock` but `in_channels`.
        level: which of the maps; the coarsest, the last, by default.
        neck: config of a neck behind it.
        init_cfg: see mmengine's `BaseModule`.
    """

    def __init__(self, in_channels: Sequence[int], *, block: Mapping[str, Any] | None = None, level: int = -1,
                 neck: Mapping[str, Any] | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not -len(in_channels) <= level < len(in_channels):
            raise UserError(f'level must be the place of one of the {len(in_channels)} maps, got {level}')
        self.block = FrozenLLMBlock(in_channels[level], **(block or {}))
        self.level = level % len(in_channels)
        self.neck = None if neck is None else MODELS.build(dict(neck))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The maps (B, C, h, w), one of them through the block, then through the neck."""
        maps = list(inputs)
        maps[self.level] = self.block(maps[self.level])
        return tuple(maps) if self.neck is None else tuple(self.neck(maps))
