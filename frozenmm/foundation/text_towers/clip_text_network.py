"""CLIP's text transformer, under the official key names."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.lookup import choice

ACTIVATIONS = ('quick_gelu', 'gelu')


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it.

    Args:
        width: of the tokens.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width ** -0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mixed tokens (N, T, C) of tokens (N, T, C)."""
        count, length, width = x.shape
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.view(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).reshape(count, length, width))


class FeedForward(nn.Module):
    """Two linear layers, four times as wide in between."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, C) to tokens (N, T, C), each on its own."""
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(1.702 * x) if self.activation == 'quick_gelu' else F.gelu(x))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, C) to tokens (N, T, C)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks (its own module for the sake of the official key names)."""

    def __init__(self, width: int, layers: int, heads: int, activation: str) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, heads, activation) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, C) to tokens (N, T, C)."""
        return self.resblocks(x)


class CLIPTextTransformer(nn.Module):
    """Text encoder and logit scale of a CLIP model.

    Args:
        width: of the tokens.
        layers: number of blocks.
        heads: heads per block.
        output_dim: width of the joint space.
        context: number of positions.
        vocabulary_size: number of tokens.
        activation: `'quick_gelu'` (OpenAI's weights) or `'gelu'`.
    """

    def __init__(self, width: int, layers: int, heads: int, output_dim: int, *, context: int = 77,
                 vocabulary_size: int = 49408, activation: str = 'quick_gelu') -> None:
        super().__init__()
        choice('activation', activation, ACTIVATIONS)
        if width % heads:
            raise UserError(f'width must be a multiple of the number of heads, got width {width} and {heads} heads')
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.positional_embedding = nn.Parameter(torch.randn(context, width) * 0.01)
        self.transformer = Transformer(width, layers, heads, activation)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, output_dim) * width ** -0.5)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.full_logit_scale = 0.0  # set after loading; the parameter itself may be cast to half precision

    def forward(self, ids: Tensor) -> Tensor:
        """Text vectors (N, output_dim), not normalised, of token ids (N, T <= context).

        The vector is read at the end mark, which has the highest id. Attention being causal, what follows the end mark
        does not matter, so T need only reach it.
        """
        x = self.token_embedding(ids) + self.positional_embedding[:ids.shape[1]]
        x = self.ln_final(self.transformer(x))
        return x[torch.arange(len(ids), device=ids.device), ids.argmax(1)] @ self.text_projection
