"""The ViT of DINOv2 under the official key names, with registers and several masked class tokens in one forward."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.masked_tokens import attend, cell_rows, through


class Attention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value.

    Args:
        width: channels.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cells: Tensor | None) -> Tensor:
        """Attend within (B, T - 1 + prefix + N, width) under the mask of T class tokens (`cell_rows`)."""
        batch, length, width = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = attend(query, key, value, cells)
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """Two linear layers with GELU (erf form)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    """Gated feed-forward part of the giant model; its hidden width is two thirds, rounded up to a multiple of 8."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block, with or without layer scale."""

    def __init__(self, width: int, heads: int, hidden: int, *, swiglu: bool = False, norm_eps: float = 1e-6,
                 layer_scale: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = (SwiGLU if swiglu else Mlp)(width, hidden)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, cells: Tensor | None) -> Tensor:
        """(B, T - 1 + prefix + N, width) to the same shape."""
        x = x + self.ls1(self.attn(self.norm1(x), cells))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patches to tokens."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, width, rows, columns)."""
        return self.proj(pixels)


class DinoVisionTransformer(nn.Module):
    """The ViT of DINOv2, and of DINO.

    Args:
        img_size: side of the images that the position table is made for, in pixels.
        patch_size: side of a patch in pixels.
        embed_dim: channels.
        depth: number of blocks.
        num_heads: number of heads.
        mlp_ratio: hidden width of the feed-forward part, relative to `embed_dim`.
        num_register_tokens: registers between class token and patches; they are dropped from the output.
        interpolate_offset: added to the grid when the position table is resized by a factor; 0 resizes to a size.
        interpolate_antialias: whether that resizing widens its filter.
        swiglu: gated feed-forward part (giant model).
        norm_eps: of every layer norm.
        layer_scale: DINOv2 has it, and a token for masked patches; DINO has neither.
    """

    def __init__(self, img_size: int = 518, patch_size: int = 14, embed_dim: int = 384, depth: int = 12,
                 num_heads: int = 6, mlp_ratio: float = 4.0, *, num_register_tokens: int = 0,
                 interpolate_offset: float = 0.1, interpolate_antialias: bool = False, swiglu: bool = False,
                 norm_eps: float = 1e-6, layer_scale: bool = True) -> None:
        super().__init__()
        self.patch_size, self.embed_dim = patch_size, embed_dim
        self.native_grid = img_size // patch_size
        self.interpolate_offset, self.interpolate_antialias = interpolate_offset, interpolate_antialias
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.native_grid**2, embed_dim) * 0.02)
        if layer_scale:
            self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        if num_register_tokens:
            self.register_tokens = nn.Parameter(torch.randn(1, num_register_tokens, embed_dim) * 0.02)
        self.num_register_tokens = num_register_tokens
        self.blocks = nn.ModuleList([
            Block(embed_dim, num_heads, int(embed_dim * mlp_ratio), swiglu=swiglu, norm_eps=norm_eps,
                  layer_scale=layer_scale)
            for _ in range(depth)])
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """(1, 1 + N, embed_dim): the position table, its patch part resized bicubically for other grids."""
        side = self.native_grid
        if grid == (side, side):
            return self.pos_embed
        table = self.pos_embed[:, 1:].float().view(1, side, side, -1).permute(0, 3, 1, 2)
        antialias = self.interpolate_antialias
        if self.interpolate_offset:
            # Parity: the factor (not the size) is passed on, so the sampling step is side / (grid + offset)
            factor = tuple(float(cells + self.interpolate_offset) / side for cells in grid)
            table = F.interpolate(table, scale_factor=factor, mode='bicubic', align_corners=False,
                                  antialias=antialias)
        else:
            table = F.interpolate(table, grid, mode='bicubic', align_corners=False, antialias=antialias)
        table = table.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], table], 1)

    def forward(self, pixels: Tensor, num_tokens: int = 1,
                taps: Sequence[int] = ()) -> tuple[dict[str, Tensor], Tensor]:
        """Map of the patches, taps and image tokens, all after the final norm.

        Args:
            pixels: (B, 3, h, w), sides multiples of the patch.
            num_tokens: 1, 5, 14 or 30.
            taps: blocks whose whole sequence is wanted.

        Returns:
            `{'patch': (B, embed_dim, rows, columns), 'tap5': (B, 1 + registers + N, embed_dim), ...}` and tokens
            (B, T, embed_dim), whole image first.
        """
        x = self.patch_embed(pixels)
        grid = (int(x.shape[2]), int(x.shape[3]))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + self.positions(grid)
        extra = num_tokens - 1
        parts = [x[:, :1].expand(-1, extra, -1), x[:, :1]]
        if self.num_register_tokens:
            parts.append(self.register_tokens.expand(x.shape[0], -1, -1))
        x = torch.cat([*parts, x[:, 1:]], 1)
        cells = cell_rows(grid, num_tokens, 1 + self.num_register_tokens, x.device)
        x, kept = through(self.blocks, x, cells, taps=taps)
        x = self.norm(x)
        patches = x[:, num_tokens + self.num_register_tokens:]
        tokens = torch.cat([x[:, extra:num_tokens], x[:, :extra]], 1)
        maps = {name: self.norm(value[:, extra:]) for name, value in kept.items()}
        return {'patch': patches.transpose(1, 2).unflatten(2, grid), **maps}, tokens
