"""A frozen ViT taken apart before its last block: CLIP's (OpenAI and open_clip) and RADIO's."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.image_towers.clip_vit import CLIPVisionTransformer, ResidualBlock
from frozenmm.foundation.image_towers.dinov2_vit import Block
from frozenmm.foundation.image_towers.radio_vit import RADIONetwork
from frozenmm.segmentation.dense_clip.attention import LastAttention, Surroundings
from frozenmm.segmentation.dense_clip.positions import resized_positions

Grid = tuple[int, int]


@dataclass(frozen=True)
class BlockParts:
    """A pre-norm block under one set of names, whatever its family calls them."""

    norm1: nn.Module
    in_weight: Tensor
    in_bias: Tensor
    heads: int
    out: nn.Module
    scale1: nn.Module
    norm2: nn.Module
    mlp: nn.Module
    scale2: nn.Module

    @classmethod
    def of(cls, block: nn.Module) -> BlockParts:
        """The parts of a block of CLIP's or of timm's names."""
        if isinstance(block, ResidualBlock):
            attn = block.attn
            return cls(block.ln_1, attn.in_proj_weight, attn.in_proj_bias, attn.heads, attn.out_proj, nn.Identity(),
                       block.ln_2, block.mlp, nn.Identity())
        named = cast(Block, block)
        return cls(named.norm1, named.attn.qkv.weight, named.attn.qkv.bias, named.attn.heads, named.attn.proj,
                   named.ls1, named.norm2, named.mlp, named.ls2)

    def project(self, x: Tensor, reads: str) -> list[Tensor]:
        """Query, key and value (B, heads, L, d) of tokens (B, L, D); those that nobody reads are the value."""
        width = x.shape[-1]
        found: dict[str, Tensor] = {}
        for index, name in enumerate('qkv'):
            if name in reads:
                part = slice(index * width, (index + 1) * width)
                projected = F.linear(x, self.in_weight[part], self.in_bias[part])
                found[name] = projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return [found.get(name, found['v']) for name in 'qkv']


@dataclass(frozen=True)
class LastBlock:
    """How the last block runs.

    Attributes:
        attention: stands for the block's own.
        residual: whether its input is added to what attention gives.
        ffn: whether the feed-forward part follows.
        class_token: whether class token (and registers) take part in attention; without them only patches come out.
    """

    attention: LastAttention
    residual: bool = True
    ffn: bool = True
    class_token: bool = True


@dataclass
class LastTokens:
    """What the last block gives.

    Attributes:
        tokens: (B, prefix + M, D), before the final norm.
        grid: rows and columns of the M patches.
        prefix: number of tokens before them.
        keys: (B, prefix + M, D), keys through the output projection, where asked for.
    """

    tokens: Tensor
    grid: Grid
    prefix: int
    keys: Tensor | None = None

    @property
    def cells(self) -> Tensor:
        """(B, D, rows, columns) of the patches."""
        return self.tokens[:, self.prefix:].transpose(1, 2).unflatten(2, self.grid)


@dataclass(frozen=True)
class Arithmetic:
    """What a method's code changes in the network itself.

    Attributes:
        positions: rule of `resized_positions`.
        same_count: a grid with as many cells as the position table is taken for the same grid (SCLIP's code).
        gelu: exact GELU in place of the network's own activation (MaskCLIP's code).
        norm_eps: of all layer norms, in place of the network's own.
    """

    positions: str = 'factor'
    same_count: bool = False
    gelu: bool = False
    norm_eps: float | None = None

    def norm(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A layer norm."""
        norm = cast(nn.LayerNorm, layer)
        eps = norm.eps if self.norm_eps is None else self.norm_eps
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, eps)

    def mlp(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A feed-forward part."""
        if not self.gelu:
            return layer(x)
        parts: Any = layer
        return parts.c_proj(F.gelu(parts.c_fc(x)))


class Trunk:
    """Reads a tower's network; families differ in how pixels become tokens and tokens become embeddings.

    Args:
        tower: a CLIP ViT (`CLIPTower`, `OpenCLIPTower`) or `RADIOTower`.
        arithmetic: changes of the network's own arithmetic.

    Raises:
        UserError: a tower of another kind.
    """

    def __init__(self, tower: ImageTower, arithmetic: Arithmetic | None = None) -> None:
        network = tower.network
        if not isinstance(network, CLIPVisionTransformer | RADIONetwork):
            raise UserError(f'{tower.name} has no last block to replace: the tower must be a CLIP ViT (CLIPTower or '
                            'OpenCLIPTower with a plain ViT) or a RADIOTower')
        self.is_clip = isinstance(network, CLIPVisionTransformer)
        self.arithmetic = arithmetic or Arithmetic()
        self.patch: int = network.patch_size
        self.output_dim: int = network.output_dim

    def before_last(self, network: Any, pixels: Tensor) -> tuple[Tensor, Grid, int]:
        """Tokens (B, prefix + N, D) that the last block gets, the grid of the N patches, and the prefix."""
        if not self.is_clip:
            x, grid = network.base_model.patch_generator(pixels)
            for block in network.base_model.blocks[:-1]:
                x = block(x, None)
            return x, grid, network.prefix
        x = network.conv1(pixels)
        grid = (int(x.shape[2]), int(x.shape[3]))
        x = F.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0))
        x[:, 0] = network.class_embedding
        x = self.arithmetic.norm(network.ln_pre, x + self.positions(network, grid))
        for block in network.transformer.resblocks[:-1]:
            x = x + block.attn(self.arithmetic.norm(block.ln_1, x), None)
            x = x + self.arithmetic.mlp(block.mlp, self.arithmetic.norm(block.ln_2, x))
        return x, grid, 1

    def positions(self, network: Any, grid: Grid) -> Tensor:
        """(1 + N, D), the position table of a CLIP ViT for a grid."""
        return resized_positions(network.positional_embedding, network.native_grid, grid,
                                 rule=self.arithmetic.positions, compat=self.arithmetic.same_count)

    def parts(self, network: Any) -> BlockParts:
        """The last block."""
        return BlockParts.of((network.transformer.resblocks if self.is_clip else network.base_model.blocks)[-1])

    def last(self, network: Any, pixels: Tensor, block: LastBlock, *, proxy: Tensor | None = None,
             proxy_grid: Grid | None = None, keys: bool = False) -> LastTokens:
        """What the changed last block gives for pixels (B, 3, h, w); `proxy` as in `Surroundings`."""
        x, grid, prefix = self.before_last(network, pixels)
        if not block.class_token:
            x, prefix = x[:, prefix:], 0
        parts = self.parts(network)
        inner = self.arithmetic.norm(parts.norm1, x)
        query, key, value = parts.project(inner, block.attention.reads + ('k' if keys else ''))
        mixed = block.attention.mix(query, key, value, Surroundings(grid, parts.out, proxy, proxy_grid))
        mixed = parts.out(mixed.transpose(1, 2).flatten(2))
        x = x + parts.scale1(mixed) if block.residual else mixed
        if block.ffn:
            x = x + parts.scale2(self.arithmetic.mlp(parts.mlp, self.arithmetic.norm(parts.norm2, x)))
        return LastTokens(x, grid if proxy_grid is None else proxy_grid, prefix,
                          parts.out(key.transpose(1, 2).flatten(2)) if keys else None)

    def attention_weights(self, network: Any, pixels: Tensor, block: LastBlock) -> Tensor:
        """(B, heads, L, L): the weights of the changed last block."""
        x, grid, prefix = self.before_last(network, pixels)
        parts = self.parts(network)
        x = self.arithmetic.norm(parts.norm1, x if block.class_token else x[:, prefix:])
        query, key, _ = parts.project(x, 'qkv')
        return block.attention.weights(query, key, Surroundings(grid, parts.out))

    def final_norm(self, network: Any, x: Tensor) -> Tensor:
        """Tokens (..., D) after the final norm, where there is one."""
        return self.arithmetic.norm(network.ln_post, x) if self.is_clip else x

    def project(self, network: Any, x: Tensor) -> Tensor:
        """Tokens (..., D) after the final norm in the space of the text, (..., E), not normalised."""
        return x @ network.proj if self.is_clip else network.project(x)
