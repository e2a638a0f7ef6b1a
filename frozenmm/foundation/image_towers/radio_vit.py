"""The ViT of RADIO under the official key names: positions of any grid, many class tokens, adaptors."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.image_towers.dinov2_vit import Block


class ClassTokens(nn.Module):
    """Class tokens and registers, one after the other (a module of its own for the official key)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(count, width) * width ** -0.5)


class PatchGenerator(nn.Module):
    """Pixels to tokens with positions.

    Args:
        patch_size: side of a patch in pixels.
        width: channels.
        side: of the grid that the position table is made for.
        prefix: number of class tokens and registers.
    """

    def __init__(self, patch_size: int, width: int, side: int, prefix: int) -> None:
        super().__init__()
        self.patch_size, self.side = patch_size, side
        self.embedder = nn.Linear(3 * patch_size ** 2, width, bias=False)
        self.pos_embed = nn.Parameter(torch.randn(1, side * side, width) * width ** -0.5)
        self.cls_token = ClassTokens(prefix, width)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """(1, rows * columns, width): resized to a square of the longer side, of which the top left part is taken."""
        if grid == (self.side, self.side):
            return self.pos_embed
        table = self.pos_embed.float().transpose(1, 2).unflatten(2, (self.side, self.side))
        longest = max(grid)
        table = F.interpolate(table, (longest, longest), mode='bilinear', align_corners=False)
        return table[..., :grid[0], :grid[1]].flatten(2).transpose(1, 2).to(self.pos_embed.dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, prefix + N, width) of (B, 3, h, w), and the grid."""
        patch = self.patch_size
        grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        weight = self.embedder.weight.unflatten(1, (3, patch, patch))
        x = F.conv2d(pixels, weight, stride=patch).flatten(2).transpose(1, 2) + self.positions(grid)
        return torch.cat([self.cls_token.token.expand(x.shape[0], -1, -1), x], 1), grid


class RADIOBody(nn.Module):
    """Tokens and blocks; there is no final norm."""

    def __init__(self, generator: PatchGenerator, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.patch_generator = generator
        self.blocks = nn.ModuleList(blocks)


class Adaptor(nn.Module):
    """RADIO's second version of the head that gives the features of one of its teachers.

    Args:
        inputs: width of the tower.
        hidden: width inside.
        outputs: width of the teacher's features.
        inner: number of residual parts.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, inner: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.fc1 = nn.Linear(inputs, hidden)
        self.blocks = nn.ModuleList([_norm_gelu_linear(hidden, hidden) for _ in range(inner)])
        self.final = _norm_gelu_linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        x = self.fc1(x)
        for block in self.blocks:
            x = x + block(x)
        return self.final(x)


def _norm_gelu_linear(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(inputs), nn.GELU(), nn.Linear(inputs, outputs))


class RADIONetwork(nn.Module):
    """RADIO's tower and the adaptor of its language teacher.

    Args:
        embed_dim, depth, num_heads, patch_size: of the ViT.
        position_side: of the grid that the position table is made for (128 in the published models).
        prefix: number of class tokens and registers.
        adaptor: hidden, outputs and inner of `Adaptor`; None without one.
        norm_eps: of the layer norms in the blocks.
        layer_scale: a factor per channel after attention and feed-forward part (C-RADIOv3).
    """

    def __init__(self, *, embed_dim: int, depth: int, num_heads: int, patch_size: int = 16, position_side: int = 128,
                 prefix: int = 8, adaptor: tuple[int, int, int] | None = None, norm_eps: float = 1e-6,
                 layer_scale: bool = False) -> None:
        super().__init__()
        self.patch_size, self.embed_dim, self.prefix = patch_size, embed_dim, prefix
        generator = PatchGenerator(patch_size, embed_dim, position_side, prefix)
        self.base_model = RADIOBody(generator, [Block(embed_dim, num_heads, 4 * embed_dim, norm_eps=norm_eps,
                                                      layer_scale=layer_scale) for _ in range(depth)])
        self.adaptor = None
        if adaptor is not None:
            hidden, outputs, inner = adaptor
            self.adaptor = Adaptor(embed_dim, hidden, outputs, inner)

    @property
    def output_dim(self) -> int:
        """Width of the language teacher's space; the tower's own without an adaptor."""
        return self.embed_dim if self.adaptor is None else self.adaptor.outputs

    def project(self, x: Tensor) -> Tensor:
        """Tokens (..., embed_dim) in the space of the language teacher."""
        return x if self.adaptor is None else self.adaptor(x)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, prefix + N, embed_dim) after the last block of (B, 3, h, w), and the grid of the N patches."""
        x, grid = self.base_model.patch_generator(pixels)
        for block in self.base_model.blocks:
            x = block(x, None)
        return x, grid
