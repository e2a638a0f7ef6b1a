"""The image ViT of OpenAI's CLIP, under the official key names, with several masked class tokens in one forward."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.lookup import choice
from frozenmm.foundation.masked_tokens import attend, cell_rows, through

PATCH_OUTPUTS = ('raw', 'normed', 'projected')


ACTIVATIONS = ('quick_gelu', 'gelu')


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation that OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


class SelfAttention(nn.Module):
    """Multi-head self-attention in the parameter layout of `nn.MultiheadAttention`.

    Args:
        width: channels.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, cells: Tensor | None) -> Tensor:
        """Attend within (B, T + N, width) under the mask of T class tokens (`cell_rows`)."""
        batch, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = attend(query, key, value, cells)
        return self.out_proj(x.transpose(1, 2).reshape(batch, length, width))


class ResidualBlock(nn.Module):
    """Pre-norm transformer block.

    Args:
        width: channels.
        heads: number of heads.
        hidden: width of the feed-forward part.
        activation: `'quick_gelu'` or `'gelu'` (erf form).
    """

    def __init__(self, width: int, heads: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(
            c_fc=nn.Linear(width, hidden), gelu=QuickGELU() if activation == 'quick_gelu' else nn.GELU(),
            c_proj=nn.Linear(hidden, width)))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, cells: Tensor | None) -> Tensor:
        """(B, T + N, width) to the same shape."""
        x = x + self.attn(self.ln_1(x), cells)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks.

    Args:
        width: channels.
        layers: number of blocks.
        heads: number of heads.
        hidden: width of the feed-forward part.
        activation: `'quick_gelu'` or `'gelu'`.
    """

    def __init__(self, width: int, layers: int, heads: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([ResidualBlock(width, heads, hidden, activation) for _ in range(layers)])

    def forward(self, x: Tensor, cells: Tensor | None, taps: Sequence[int] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, T + N, width) to the same shape, and that after the blocks to tap."""
        return through(self.resblocks, x, cells, taps=taps)


class CLIPVisionTransformer(nn.Module):
    """CLIP's image ViT.

    Args:
        input_resolution: side of the training images in pixels.
        patch_size: side of a patch in pixels.
        width: channels inside.
        layers: number of blocks.
        heads: number of heads.
        output_dim: channels of the joint space.
        mlp_ratio: hidden width of the feed-forward part, relative to `width`.
        activation: `'quick_gelu'` (OpenAI's weights) or `'gelu'` (most of open_clip's).
    """

    def __init__(self, input_resolution: int, patch_size: int, width: int, layers: int, heads: int, output_dim: int, *,
                 mlp_ratio: float = 4.0, activation: str = 'quick_gelu') -> None:
        super().__init__()
        choice('activation', activation, ACTIVATIONS)
        self.patch_size = patch_size
        self.native_grid = input_resolution // patch_size
        self.output_dim = output_dim
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(self.native_grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, int(width * mlp_ratio), activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output_dim))

    @property
    def channels(self) -> dict[str, int]:
        """Width of the raw map."""
        return {'patch': self.conv1.out_channels}

    @property
    def strides(self) -> dict[str, int]:
        """Stride of the map."""
        return {'patch': self.patch_size}

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """(1 + N, width): the position table, its patch part resized bilinearly for other grids."""
        side = self.native_grid
        if grid == (side, side):
            return self.positional_embedding
        table = self.positional_embedding[1:].float().view(1, side, side, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, grid, mode='bilinear', align_corners=False)
        table = table.flatten(2)[0].t().to(self.positional_embedding.dtype)
        return torch.cat([self.positional_embedding[:1], table])

    def project(self, x: Tensor) -> Tensor:
        """Tokens (..., width) in the joint space (..., output_dim): final norm and projection."""
        return self.ln_post(x) @ self.proj

    def forward(self, pixels: Tensor, num_tokens: int = 1,
                patch_output: str = 'raw',
                taps: Sequence[int] = ()) -> tuple[dict[str, Tensor], Tensor]:
        """Map of the patches, taps and image tokens.

        Args:
            pixels: (B, 3, h, w), sides multiples of the patch.
            num_tokens: 1, 5, 14 or 30.
            patch_output: `'raw'` for the last block's output, `'normed'` for it after `ln_post`, `'projected'` for it
                in the joint space.
            taps: blocks whose whole sequence is wanted, after `ln_post`.

        Returns:
            `{'patch': (B, C, rows, columns), 'tap5': (B, 1 + N, width), ...}` and tokens (B, T, output_dim), whole
            image first.
        """
        x = self.conv1(pixels)
        grid = (int(x.shape[2]), int(x.shape[3]))
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = self.ln_pre(x + self.positions(grid))
        extra = num_tokens - 1
        x = torch.cat([x[:, :1].expand(-1, extra, -1), x], 1)
        x, kept = self.transformer(x, cell_rows(grid, num_tokens, device=x.device), taps)
        tokens = self.project(torch.cat([x[:, extra:num_tokens], x[:, :extra]], 1))
        patches = x[:, num_tokens:]
        if patch_output != 'raw':
            patches = self.ln_post(patches) if patch_output == 'normed' else self.project(patches)
        maps = {name: self.ln_post(value[:, extra:]) for name, value in kept.items()}
        return {'patch': patches.transpose(1, 2).unflatten(2, grid), **maps}, tokens
