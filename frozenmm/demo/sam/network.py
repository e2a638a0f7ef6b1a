"""The network of the demonstration model that stands in for SAM: a neck and a prompt decoder on a frozen trunk.

It has SAM's interface (image features; points and boxes to masks with predicted IoU) at a small part of its cost:
prompts share one memory of the image, and a mask is the product of a token with fine image features, as in Mask2Former.
SAM's decoder updates its image tokens for every prompt anew.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.image_towers.sam_vit import LayerNorm2d, MLPBlock

TRUNK_CHANNELS = (24, 40, 112, 320)
"""Widths of EfficientNet-Lite0's res2..res5."""
NUM_MASKS = 4
"""One mask for prompts that leave no doubt, three for those that do."""


class FourierPositions(nn.Module):
    """Random Fourier features of positions; the frequencies are drawn once and stored with the weights.

    Args:
        channels: width of the encoding, even.
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        draw = torch.randn(2, channels // 2, generator=torch.Generator().manual_seed(0))
        self.register_buffer('frequencies', draw)

    def forward(self, points: Tensor) -> Tensor:
        """(..., 2) x and y in 0..1 to (..., channels)."""
        angles = 2 * math.pi * ((2 * points - 1) @ self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], -1)

    def grid(self, height: int, width: int) -> Tensor:
        """(height, width, channels): the encoding of the centres of cells."""
        like = self.frequencies
        rows, columns = ((torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count
                         for count in (height, width))
        return self(torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1))


class SeparableBlock(nn.Module):
    """Residual block: depthwise 3x3 convolution, norm, two linear layers with GELU between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.mix = MLPBlock(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        return x + self.mix(self.norm(self.spread(x).movedim(1, -1))).movedim(-1, 1)


class Pointwise(nn.Module):
    """A linear layer on every cell of a map; on a CPU faster than a 1x1 convolution.

    Args:
        inputs: channels of the map.
        outputs: channels of the result.
        norm: whether a layer norm follows.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        return self.norm(self.linear(x.movedim(1, -1))).movedim(-1, 1)


class GlobalBlock(nn.Module):
    """Pre-norm transformer block; the position encoding goes into queries and keys."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, 2 * channels)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Tokens (B, N, channels) and their positions (N, channels) to tokens."""
        normed = self.norm1(x)
        placed = normed + position
        x = x + self.attn(placed, placed, normed, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Neck(nn.Module):
    """From the trunk's maps to what the decoder looks at.

    Args:
        in_channels: widths of res2..res5.
        channels: width of the embedding.
        mask_channels: width of the fine features.
        depth: number of global blocks, at stride 16.
        heads: number of heads in them.
    """

    def __init__(self, in_channels: Sequence[int] = TRUNK_CHANNELS, *, channels: int = 64, mask_channels: int = 32,
                 depth: int = 2, heads: int = 8) -> None:
        super().__init__()
        widths = (mask_channels, channels, channels, channels)
        self.laterals = nn.ModuleList(Pointwise(inputs, width, norm=True)
                                      for inputs, width in zip(in_channels, widths, strict=True))
        self.positions = FourierPositions(channels)
        self.blocks = nn.ModuleList(GlobalBlock(channels, heads) for _ in range(depth))
        self.embed = nn.Sequential(SeparableBlock(channels), SeparableBlock(channels), LayerNorm2d(channels))
        self.reduce = Pointwise(channels, mask_channels)
        self.refine = nn.Sequential(SeparableBlock(mask_channels), SeparableBlock(mask_channels))
        self.place = nn.Linear(channels, mask_channels)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The maps of an image.

        Args:
            maps: res2..res5 (B, C, h, w) of strides 4..32.

        Returns:
            `mask` (B, mask_channels, H/4, W/4), `neck` (B, channels, H/8, W/8), `coarse` (B, channels, H/16, W/16).
        """
        fine, middle, coarse, deep = (lateral(maps[name]) for lateral, name in
                                      zip(self.laterals, ('res2', 'res3', 'res4', 'res5')))
        coarse = coarse + _resize_like(deep, coarse)
        height, width = coarse.shape[-2:]
        tokens, position = coarse.flatten(2).transpose(1, 2), self.positions.grid(height, width).flatten(0, 1)
        for block in self.blocks:
            tokens = block(tokens, position)
        coarse = tokens.transpose(1, 2).unflatten(2, (height, width))
        middle = self.embed(middle + _resize_like(coarse, middle))
        fine = self.refine(fine + _resize_like(self.reduce(middle), fine))
        where = self.place(self.positions.grid(*fine.shape[-2:])).movedim(-1, 0)
        return {'mask': fine + where, 'neck': middle, 'coarse': coarse}


def _resize_like(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode='bilinear', align_corners=False)


class PromptLayer(nn.Module):
    """Pre-norm decoder layer: tokens of a prompt among themselves, then at the image, then alone."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.self_attn = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mlp = MLPBlock(channels, 2 * channels)

    def forward(self, tokens: Tensor, memory: Tensor, keys: Tensor) -> Tensor:
        """Tokens (B, P, T, C), memory and keys (B, N, C), to tokens."""
        batch, prompts = tokens.shape[:2]
        normed = self.norm1(tokens).flatten(0, 1)
        tokens = tokens + self.self_attn(normed, normed, normed, need_weights=False)[0].unflatten(0, (batch, prompts))
        # all prompts of an image share its memory, so their tokens are the queries of one product
        normed = self.norm2(tokens).flatten(1, 2)
        seen = self.cross_attn(normed, keys, memory, need_weights=False)[0]
        tokens = tokens + seen.unflatten(1, tokens.shape[1:3])
        return tokens + self.mlp(self.norm3(tokens))


class PromptDecoder(nn.Module):
    """Points and boxes to masks and predicted IoU.

    Args:
        channels: width of embedding and tokens.
        mask_channels: width of the fine features.
        depth: number of layers.
        heads: number of heads in them.
    """

    def __init__(self, channels: int = 64, mask_channels: int = 32, *, depth: int = 3, heads: int = 8) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1 + NUM_MASKS, channels)
        self.kinds = nn.Embedding(5, channels)
        self.look = nn.Linear(channels, channels)
        self.layers = nn.ModuleList(PromptLayer(channels, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)
        self.memory_norm = nn.LayerNorm(channels)
        self.to_mask = nn.ModuleList(_mlp(channels, mask_channels) for _ in range(NUM_MASKS))
        self.to_iou = _mlp(channels, NUM_MASKS)

    def forward(self, maps: Mapping[str, Tensor], positions: FourierPositions, points: Tensor,
                labels: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of prompts.

        Args:
            maps: what `Neck` gives.
            positions: its position encoding.
            points: (B, P, K, 2) x and y as shares of the input's width and height.
            labels: (B, P, K) int64, see `PADDING`.

        Returns:
            (B, P, 4, H/4, W/4) logits; (B, P, 4) predicted IoU in 0..1.
        """
        coarse, fine = maps['coarse'], maps['mask']
        memory = self.memory_norm(coarse.flatten(2).transpose(1, 2))
        keys = memory + positions.grid(*coarse.shape[-2:]).flatten(0, 1)
        own = self.tokens.weight.expand(*points.shape[:2], -1, -1)
        tokens = torch.cat([own, self.prompt_tokens(maps['neck'], positions, points, labels)], 2)
        for layer in self.layers:
            tokens = layer(tokens, memory, keys)
        tokens = self.norm(tokens)
        weights = torch.stack([head(tokens[:, :, 1 + index]) for index, head in enumerate(self.to_mask)], 2)
        logits = torch.einsum('bpmc,bchw->bpmhw', weights, fine)
        return logits, self.to_iou(tokens[:, :, 0]).sigmoid()

    def prompt_tokens(self, embedding: Tensor, positions: FourierPositions, points: Tensor, labels: Tensor) -> Tensor:
        """(B, P, K, C): kind, place and the image's embedding there; padding points have their kind alone."""
        seen = F.grid_sample(embedding, 2 * points - 1, mode='bilinear', padding_mode='border', align_corners=False)
        placed = positions(points) + self.look(seen.movedim(1, -1))
        return self.kinds((labels + 1).long()) + placed * (labels >= 0)[..., None]


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs), nn.GELU(), nn.Linear(inputs, outputs))


class DemoSAMHead(nn.Module):
    """The trained part: neck and prompt decoder.

    Args:
        channels: width of the embedding.
        mask_channels: width of the fine features.
        neck_depth: global blocks of the neck.
        decoder_depth: layers of the decoder.
        heads: attention heads.
    """

    def __init__(self, channels: int = 64, mask_channels: int = 32, *, neck_depth: int = 2, decoder_depth: int = 3,
                 heads: int = 8) -> None:
        super().__init__()
        self.neck = Neck(channels=channels, mask_channels=mask_channels, depth=neck_depth, heads=heads)
        self.decoder = PromptDecoder(channels, mask_channels, depth=decoder_depth, heads=heads)

    def encode(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Neck.forward`."""
        return self.neck(maps)

    def decode(self, maps: Mapping[str, Tensor], points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Masks and predicted IoU of prompts; see `PromptDecoder.forward`."""
        return self.decoder(maps, self.neck.positions, points, labels)


class DemoSAMNetwork(nn.Module):
    """Trunk and trained part in one, as a tower holds them.

    Args:
        trunk: an `EfficientNetLite`.
        head: the trained part.
    """

    def __init__(self, trunk: nn.Module, head: DemoSAMHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """The maps of pixels (B, 3, h, w) with sides that are multiples of 32; see `Neck.forward`."""
        return self.head.encode(self.trunk(pixels, 'res5'))
