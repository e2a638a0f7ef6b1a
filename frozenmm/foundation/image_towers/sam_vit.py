"""The image encoder of SAM under the official key names: windowed ViT with decomposed relative positions, and neck."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.masked_tokens import through


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a map.

    Args:
        channels: width.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        x = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.movedim(-1, 1)


def neck(inputs: int, outputs: int) -> nn.Sequential:
    """SAM's neck, (B, inputs, h, w) to (B, outputs, h, w)."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), LayerNorm2d(outputs),
                         nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), LayerNorm2d(outputs))


def relative_table(table: Tensor, side: int) -> Tensor:
    """Relative position vectors of one axis.

    Args:
        table: (2 * native - 1, C), resized linearly where the side is another one.
        side: number of cells.

    Returns:
        (side, side, C): entry [i, j] belongs to query i and key j.
    """
    if len(table) != 2 * side - 1:
        resized = F.interpolate(table.float().t()[None], 2 * side - 1, mode='linear', align_corners=False)
        table = resized[0].t().to(table.dtype)
    index = torch.arange(side, device=table.device)
    return table[index[:, None] - index[None] + side - 1]


class Attention(nn.Module):
    """Self-attention of a map with relative positions, one term per axis.

    Args:
        width: channels.
        heads: number of heads.
        native: side of the map (or window) that the relative table is made for.
        use_rel_pos: whether there is such a table.
        qkv_bias: bias of the projection.
    """

    def __init__(self, width: int, heads: int, native: int, *, use_rel_pos: bool = True, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads, self.use_rel_pos = heads, use_rel_pos
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        if use_rel_pos:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * native - 1, width // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * native - 1, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, width) to the same shape."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        bias = self._bias(query, height, width) if self.use_rel_pos else None
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, channels))

    def _bias(self, query: Tensor, height: int, width: int) -> Tensor:
        """(B, heads, h*w, h*w), from the query before scaling."""
        query = query.unflatten(2, (height, width))
        rows = torch.einsum('bnhwc,hkc->bnhwk', query, relative_table(self.rel_pos_h, height))
        columns = torch.einsum('bnhwc,wkc->bnhwk', query, relative_table(self.rel_pos_w, width))
        return (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)


class MLPBlock(nn.Module):
    """Two linear layers with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        return self.lin2(F.gelu(self.lin1(x)))


@dataclass(frozen=True)
class SAMSizes:
    """Sizes of an image encoder.

    Attributes:
        img_size: side of the training images in pixels.
        patch_size: side of a patch in pixels.
        embed_dim: channels inside.
        depth: number of blocks.
        num_heads: number of heads.
        mlp_ratio: hidden width of the feed-forward part, relative to `embed_dim`.
        out_chans: channels of the neck.
        window_size: of the other blocks, in cells.
        global_attn_indexes: blocks that attend to the whole map.
        qkv_bias: bias of the projections to query, key and value.
        use_rel_pos: relative positions in attention.
        use_abs_pos: a table of absolute positions.
        norm_eps: of the layer norms in the blocks.
    """

    img_size: int = 1024
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    out_chans: int = 256
    window_size: int = 14
    global_attn_indexes: Sequence[int] = (2, 5, 8, 11)
    qkv_bias: bool = True
    use_rel_pos: bool = True
    use_abs_pos: bool = True
    norm_eps: float = 1e-6


class Block(nn.Module):
    """Pre-norm block; the window (0: the whole map) is cut after the norm, so that its padding is zero."""

    def __init__(self, sizes: SAMSizes, window: int) -> None:
        super().__init__()
        width = sizes.embed_dim
        self.norm1 = nn.LayerNorm(width, eps=sizes.norm_eps)
        self.attn = Attention(width, sizes.num_heads, window or sizes.img_size // sizes.patch_size,
                              use_rel_pos=sizes.use_rel_pos, qkv_bias=sizes.qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=sizes.norm_eps)
        self.mlp = MLPBlock(width, int(width * sizes.mlp_ratio))
        self.window_size = window

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, width) to the same shape."""
        y = self.norm1(x)
        y = in_windows(y, self.window_size, self.attn) if self.window_size else self.attn(y)
        x = x + y
        return x + self.mlp(self.norm2(x))


def in_windows(x: Tensor, side: int, function: nn.Module) -> Tensor:
    """Apply a function to windows of a map, padded with zeros at the bottom and right.

    Args:
        x: (B, h, w, C).
        side: of a window, in cells.
        function: (B', side, side, C) to the same shape.

    Returns:
        (B, h, w, C).
    """
    batch, height, width, _ = x.shape
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
    rows, columns = x.shape[1:3]
    x = function(x.flatten(0, 2)).unflatten(0, (batch, rows, columns)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class PatchEmbed(nn.Module):
    """Patches to cells."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, rows, columns, width)."""
        return self.proj(pixels).movedim(1, -1)


class ImageEncoderViT(nn.Module):
    """SAM's image encoder.

    Args:
        sizes: of the network.
    """

    def __init__(self, sizes: SAMSizes) -> None:
        super().__init__()
        width, native = sizes.embed_dim, sizes.img_size // sizes.patch_size
        self.img_size, self.patch_size = sizes.img_size, sizes.patch_size
        self.embed_dim, self.out_chans = width, sizes.out_chans
        self.global_attn_indexes = tuple(sizes.global_attn_indexes)
        self.patch_embed = PatchEmbed(sizes.patch_size, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, native, native, width)) if sizes.use_abs_pos else None
        self.blocks = nn.ModuleList([Block(sizes, 0 if index in self.global_attn_indexes else sizes.window_size)
                                     for index in range(sizes.depth)])
        self.neck = neck(width, sizes.out_chans)

    @property
    def channels(self) -> dict[str, int]:
        """Width of every map."""
        return {**{f'global{i + 1}': self.embed_dim for i in range(len(self.global_attn_indexes))},
                'neck': self.out_chans}

    @property
    def strides(self) -> dict[str, int]:
        """Stride of every map."""
        return dict.fromkeys(self.channels, self.patch_size)

    def positions(self, grid: tuple[int, int]) -> Tensor | float:
        """(1, rows, columns, embed_dim), resized bicubically for other grids; 0 without a table."""
        if self.pos_embed is None or self.pos_embed.shape[1:3] == grid:
            return 0.0 if self.pos_embed is None else self.pos_embed
        table = F.interpolate(self.pos_embed.float().movedim(-1, 1), grid, mode='bicubic', align_corners=False)
        return table.movedim(1, -1).to(self.pos_embed.dtype)

    def forward(self, pixels: Tensor, taps: Sequence[int] = ()) -> dict[str, Tensor]:
        """Maps of (B, 3, h, w): `'global1'`... after each block that attends to the whole map, and `'neck'`.

        Blocks to tap give `'tap0'`, ... (B, h * w, embed_dim): no prefix tokens and no final norm, which SAM has not.
        """
        x = self.patch_embed(pixels)
        x = x + self.positions((int(x.shape[1]), int(x.shape[2])))
        x, kept = through(self.blocks, x, taps={*self.global_attn_indexes, *taps})
        maps = {f'global{place + 1}': kept[f'tap{index}'].movedim(-1, 1)
                for place, index in enumerate(sorted(self.global_attn_indexes))}
        tapped = {f'tap{index}': kept[f'tap{index}'].flatten(1, 2) for index in taps}
        return {**maps, 'neck': self.neck(x.movedim(-1, 1)), **tapped}
