"""One transformer block of a language model, in the layouts of LLaMA, OPT and BERT, under names of our own."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.state_file import read_state


@dataclass(frozen=True)
class BlockLayout:
    """How the blocks of a family are made, and what its files call the parts.

    Attributes:
        names: our part -> its name behind `prefix`.
        prefix: a regular expression for what stands before the parts of block `(?P<block>..)`.
        norm: `'rms'` or `'layer'`.
        pre_norm: norms before attention and feed-forward (True), or behind their residuals.
        activation: `'silu'`, in a gated feed-forward `down(silu(gate x) * up x)`; or `'relu'`, `'gelu'` in a plain one.
        eps: of the norms.
        halves: rotary positions turn channel i with i + half (transformers), else neighbours (LLaMA's own code).
    """

    names: Mapping[str, str]
    prefix: str
    norm: str = 'rms'
    pre_norm: bool = True
    activation: str = 'silu'
    eps: float = 1e-6
    halves: bool = False

    @property
    def bias(self) -> bool:
        """Linear parts have a bias in all families with layer norms."""
        return self.norm == 'layer'

    def make_norm(self, width: int) -> nn.Module:
        """A norm of the family, its weight 1."""
        return RMSNorm(width, self.eps) if self.norm == 'rms' else nn.LayerNorm(width, eps=self.eps)


def _names(theirs: str) -> dict[str, str]:
    """Our parts and theirs, in the order of ours."""
    return dict(zip(('query', 'key', 'value', 'out', 'norm1', 'norm2', 'up', 'down', 'gate'), theirs.split()))


LAYOUTS: dict[str, BlockLayout] = {
    'llama': BlockLayout(_names('attention.wq attention.wk attention.wv attention.wo attention_norm ffn_norm '
                                'feed_forward.w3 feed_forward.w2 feed_forward.w1'),
                         r'layers\.(?P<block>\d+)\.'),
    'hf_llama': BlockLayout(_names('self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj '
                                   'input_layernorm post_attention_layernorm mlp.up_proj mlp.down_proj mlp.gate_proj'),
                            r'(?:model\.)?layers\.(?P<block>\d+)\.', halves=True),
    'opt': BlockLayout(_names('self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj '
                              'self_attn_layer_norm final_layer_norm fc1 fc2'),
                       r'(?:model\.)?decoder\.layers\.(?P<block>\d+)\.', norm='layer', activation='relu', eps=1e-5),
    'bert': BlockLayout(_names('attention.self.query attention.self.key attention.self.value attention.output.dense '
                               'attention.output.LayerNorm output.LayerNorm intermediate.dense output.dense'),
                        r'(?:bert\.)?encoder\.layer\.(?P<block>\d+)\.', norm='layer', pre_norm=False,
                        activation='gelu', eps=1e-12),
}
"""Blocks of LLaMA in its own and in transformers' file, OPT (but 350m, which has its norms behind) and BERT."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) in float32, cast back, times a weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


class LanguageBlock(nn.Module):
    """Attention and feed-forward of a language model on tokens that are no words.

    Args:
        layout: of the family.
        width: C of the tokens.
        heads: of the attention.
        hidden: width of the feed-forward.
        rope: rotary positions, base 10000, of the tokens' order; LLaMA's own models have them.
        causal: a token sees itself and those before it.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    up: nn.Linear
    down: nn.Linear
    gate: nn.Linear
    norm1: nn.Module
    norm2: nn.Module

    def __init__(self, layout: BlockLayout, width: int, heads: int, hidden: int, *, rope: bool = False,
                 causal: bool = False) -> None:
        super().__init__()
        if width % heads or (rope and width // heads % 2):
            raise UserError(f'a block of width {width} cannot have {heads} heads; the width must be a multiple of them')
        self.layout, self.heads, self.rope, self.causal = layout, heads, rope, causal
        for name in layout.names:
            wide = {'up': (width, hidden), 'gate': (width, hidden), 'down': (hidden, width)}.get(name, (width, width))
            setattr(self, name, layout.make_norm(width) if 'norm' in name else nn.Linear(*wide, bias=layout.bias))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Tokens (B, N, C) of tokens (B, N, C); `valid` (B, N) bool says which of them may be looked at."""
        if self.layout.pre_norm:
            x = x + self._attend(self.norm1(x), valid)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self._attend(x, valid))
        return self.norm2(x + self._feed(x))

    def _attend(self, x: Tensor, valid: Tensor | None) -> Tensor:
        batch, count, width = x.shape
        query, key, value = (part(x).view(batch, count, self.heads, -1).transpose(1, 2)
                             for part in (self.query, self.key, self.value))
        if self.rope:
            query, key = (rotated(part, halves=self.layout.halves) for part in (query, key))
        seen = None if valid is None else valid[:, None, None]
        if self.causal:
            before = torch.ones(count, count, dtype=torch.bool, device=x.device).tril()
            seen = before if seen is None else before & seen
        # the kernels keep the softmax in float32, whatever the type of the tokens
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, width))

    def _feed(self, x: Tensor) -> Tensor:
        activation = getattr(F, self.layout.activation)
        if self.layout.activation == 'silu':
            return self.down(activation(self.gate(x)) * self.up(x))
        return self.down(activation(self.up(x)))


def rotated(x: Tensor, *, halves: bool) -> Tensor:
    """Rotary positions of (B, heads, N, C), base 10000; see `BlockLayout.halves`."""
    half = x.shape[-1] // 2
    frequency = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    first, second = x.float().chunk(2, -1) if halves else x.float().unflatten(-1, (half, 2)).unbind(-1)
    turned = (first * cos - second * sin, first * sin + second * cos)
    return (torch.cat(turned, -1) if halves else torch.stack(turned, -1).flatten(-2)).to(x.dtype)


def read_language_state(source: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of a folder with `model.safetensors`, its parts, or LLaMA's `consolidated.00.pth`.

    Raises:
        MissingFile: nothing of the kind is there.
        UserError: an unreadable file, or weights that are split by columns over several files.
    """
    if source.is_file():
        return read_state(source)
    if list(source.glob('consolidated.0[1-9].pth')):
        raise UserError(f'{source} holds a model that is split by columns (consolidated.01.pth, ...); join its parts, '
                        'or give the folder of its conversion for transformers')
    index = source / 'model.safetensors.index.json'
    if index.is_file():
        with reading(index, 'an index of weights', 'fetch the folder again'):
            parts = sorted(set(json.loads(index.read_text(encoding='utf-8'))['weight_map'].values()))
    else:
        names = ('model.safetensors', 'pytorch_model.bin', 'consolidated.00.pth')
        parts = [name for name in names if (source / name).is_file()][:1]
    if not parts:
        raise MissingFile(f'{source} is no file and no folder with model.safetensors, its index, pytorch_model.bin or '
                          'consolidated.00.pth; give the weights of a language model')
    return {key: value for part in parts for key, value in read_state(source / part).items()}


def block_states(state: Mapping[str, Tensor], source: str, *, count: int = 1) -> tuple[str, list[dict[str, Tensor]]]:
    """The layout of a language model and its last blocks, under our names.

    Args:
        state: of the whole model, in any of `LAYOUTS`.
        source: for errors.
        count: how many of the last blocks.

    Raises:
        UserError: no layout fits, a part is missing, or there are fewer blocks.
    """
    for kind, layout in LAYOUTS.items():
        pattern = re.compile(layout.prefix)
        found: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            match = pattern.match(key)
            if match:
                found.setdefault(int(match['block']), {})[key[match.end():]] = value
        if not found or f'{layout.names["query"]}.weight' not in next(iter(found.values())):
            continue
        if len(found) < count:
            raise UserError(f'{source} has {len(found)} blocks, but {count} were asked for')
        ends = ('weight', 'bias') if layout.bias else ('weight', )
        wanted = {f'{ours}.{end}': f'{theirs}.{end}' for ours, theirs in layout.names.items() for end in ends}
        states = []
        for block in sorted(found)[-count:]:
            missing = [theirs for theirs in wanted.values() if theirs not in found[block]]
            if missing:
                raise UserError(f'block {block} of {source} lacks {missing[:3]}; is the file whole?')
            states.append({ours: found[block][theirs] for ours, theirs in wanted.items()})
        return kind, states
    raise UserError(f'{source} holds no blocks of {list(LAYOUTS)}; it begins with {sorted(state)[:3]}')
