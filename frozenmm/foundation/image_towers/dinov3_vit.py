"""The ViT of DINOv3 under the key names of the transformers library; its block serves plain decoders too."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.masked_tokens import through

Rope = tuple[Tensor, Tensor]


def grid_rope(grid: tuple[int, int], head_channels: int, *, base: float = 100.0, scale: float | Tensor = 1.0,
              device: torch.device | None = None) -> Rope:
    """Rotary position of the patches of a grid.

    Source: DINOv3 (Simeoni et al., 2025), axial rope: patch centres in -1..1, (y, x), channels in two halves.

    Args:
        grid: rows and columns.
        head_channels: channels of an attention head, a multiple of 4.
        base: of the geometric series of frequencies.
        scale: factor of the coordinates.
        device: of the result.

    Returns:
        Cosine and sine, each (rows * columns, head_channels) float32.
    """
    axes = [2 * (torch.arange(cells, dtype=torch.float32, device=device) + 0.5) / cells - 1 for cells in grid]
    centres = torch.stack(torch.meshgrid(*axes, indexing='ij'), -1).flatten(0, 1) * scale
    steps = torch.arange(head_channels // 4, dtype=torch.float32, device=device)
    frequencies = base**(-4 * steps / head_channels)
    angles = (2 * math.pi * centres[:, :, None] * frequencies).flatten(1).tile(2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Tokens (..., L, head_channels) whose last ones, as many as `rope` has rows, are rotated by their position."""
    cosine, sine = (part.to(x.dtype) for part in rope)
    start = x.shape[-2] - cosine.shape[0]
    moved = x[..., start:, :]
    first, second = moved.chunk(2, -1)
    moved = moved * cosine + torch.cat([-second, first], -1) * sine
    return torch.cat([x[..., :start, :], moved], -2)


class RotaryAttention(nn.Module):
    """Multi-head self-attention with rotary positions.

    Args:
        width: channels.
        heads: number of heads.
        bias: of the projections to query, value and output; that to keys has none.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=bias)
        self.o_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: Rope, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """Attend within (B, L, width).

        Args:
            x: the tokens.
            rope: of the last tokens.
            rows: (B, Q, L) bool, what the first Q tokens may look at; all rows see `keys` without it.
            keys: (B, 1, L) bool, tokens that may be looked at; all without it.
        """
        query, key, value = (projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                             for projection in (self.q_proj, self.k_proj, self.v_proj))
        query, key = rotate(query, rope), rotate(key, rope)
        rest = None if keys is None else keys[:, None]
        if rows is None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=rest)
        else:  # in two parts, so that the larger one runs without a mask
            count, mask = rows.shape[1], rows[:, None] if rest is None else rows[:, None] & rest
            mixed = torch.cat([
                F.scaled_dot_product_attention(query[:, :, :count], key, value, attn_mask=mask),
                F.scaled_dot_product_attention(query[:, :, count:], key, value, attn_mask=rest)], 2)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Feed-forward part: two linear layers with GELU (erf form), or three with a SiLU gate."""

    def __init__(self, width: int, hidden: int, *, gated: bool = False) -> None:
        super().__init__()
        if gated:
            self.gate_proj = nn.Linear(width, hidden)
        self.gated = gated
        self.up_proj = nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        hidden = F.silu(self.gate_proj(x)) * self.up_proj(x) if self.gated else F.gelu(self.up_proj(x))
        return self.down_proj(hidden)


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        return x * self.lambda1


class RotaryBlock(nn.Module):
    """Pre-norm block with rotary self-attention and layer scale.

    Args:
        width: channels.
        heads: number of heads.
        hidden: width of the feed-forward part.
        gated: whether that has a SiLU gate.
        bias: see `RotaryAttention`.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, gated: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attention = RotaryAttention(width, heads, bias=bias)
        self.layer_scale1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = Mlp(width, hidden, gated=gated)
        self.layer_scale2 = LayerScale(width)

    def forward(self, x: Tensor, rope: Rope, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """(B, L, width) to the same shape; see `RotaryAttention`."""
        x = x + self.layer_scale1(self.attention(self.norm1(x), rope, rows, keys))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class Embeddings(nn.Module):
    """Class token, registers and patches; positions come in the blocks."""

    def __init__(self, patch_size: int, width: int, registers: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.register_tokens = nn.Parameter(torch.randn(1, registers, width) * 0.02)
        self.patch_embeddings = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, 1 + registers + N, width) of (B, 3, h, w), and the grid."""
        patches = self.patch_embeddings(pixels)
        prefix = [token.expand(pixels.shape[0], -1, -1) for token in (self.cls_token, self.register_tokens)]
        return torch.cat([*prefix, patches.flatten(2).transpose(1, 2)], 1), (patches.shape[2], patches.shape[3])


class DINOv3VisionTransformer(nn.Module):
    """DINOv3's ViT.

    Args:
        patch_size: side of a patch in pixels.
        embed_dim: channels.
        depth: number of blocks.
        num_heads: number of heads.
        hidden_dim: width of the feed-forward parts, four times `embed_dim` by default.
        num_register_tokens: registers between class token and patches.
        gated: feed-forward parts with a gate ("plus" and 7B models).
        qkv_bias: bias of the projections to query and value.
    """

    def __init__(self, patch_size: int = 16, embed_dim: int = 384, depth: int = 12, num_heads: int = 6, *,
                 hidden_dim: int | None = None, num_register_tokens: int = 4, gated: bool = False,
                 qkv_bias: bool = True) -> None:
        super().__init__()
        self.patch_size, self.embed_dim = patch_size, embed_dim
        self.num_register_tokens = num_register_tokens
        self.head_channels = embed_dim // num_heads
        self.embeddings = Embeddings(patch_size, embed_dim, num_register_tokens)
        self.layer = nn.ModuleList([
            RotaryBlock(embed_dim, num_heads, hidden_dim or 4 * embed_dim, gated=gated, bias=qkv_bias)
            for _ in range(depth)])
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)

    def forward(self, pixels: Tensor, taps: Sequence[int] = ()) -> tuple[dict[str, Tensor], Tensor]:
        """Map of the patches, taps and class token, all after the final norm.

        Args:
            pixels: (B, 3, h, w), sides multiples of the patch.
            taps: blocks whose whole sequence is wanted.

        Returns:
            `{'patch': (B, embed_dim, rows, columns), 'tap5': (B, 1 + registers + N, embed_dim), ...}` and the class
            token (B, embed_dim).
        """
        x, grid = self.embeddings(pixels)
        rope = grid_rope(grid, self.head_channels, device=x.device)
        x, kept = through(self.layer, x, rope, taps=taps)
        x = self.norm(x)
        patches = x[:, 1 + self.num_register_tokens:].transpose(1, 2).unflatten(2, grid)
        return {'patch': patches, **{name: self.norm(value) for name, value in kept.items()}}, x[:, 0]
