"""Image queries: what a frozen model says about the whole image and its cells, as extra keys of the decoder."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import TOKEN_COUNTS


@dataclass
class LayerImageQueries:
    """The image queries of a batch.

    Attributes:
        queries: (B, T, C) per layer.
        references: (B, T, 4) their cxcywh boxes in units of the unpadded image.
    """

    queries: list[Tensor]
    references: Tensor


def image_query_boxes(sizes: Sequence[tuple[int, int]], count: int) -> Tensor:
    """Boxes of the image queries in pixels.

    The pyramid step k has k x k tiles of ceil(W / k) x ceil(H / k) pixels, row by row. They are not clipped: with odd
    sizes the last column and row exceed the image. Source: Frozen-DETR, section 3.2, and its official code.

    Args:
        sizes: (height, width) of every image without padding.
        count: 1, 5, 14 or 30 queries per image.

    Returns:
        (B, T, 4) float32 xyxy, the whole image first.
    """
    steps = _steps(count)
    boxes = []
    for height, width in sizes:
        for k in range(1, steps + 1):
            tall, wide = -(-height // k), -(-width // k)
            boxes += [(column * wide, row * tall, (column + 1) * wide, (row + 1) * tall)
                      for row in range(k) for column in range(k)]
    return torch.tensor(boxes, dtype=torch.float32).view(len(sizes), count, 4)


def image_query_references(sizes: Sequence[tuple[int, int]], count: int) -> Tensor:
    """The same boxes as reference boxes of the decoder: (B, T, 4) cxcywh in units of the unpadded image."""
    x1, y1, x2, y2 = image_query_boxes(sizes, count).unbind(-1)
    units = torch.tensor([(width, height) for height, width in sizes], dtype=torch.float32).repeat(1, 2)
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -1) / units[:, None]


def _steps(count: int) -> int:
    if not TOKEN_COUNTS.get(count):
        counts = [key for key in TOKEN_COUNTS if key]
        raise UserError(f'the number of image queries must be one of {counts} (1 + 4 + 9 + ... cells), got {count}')
    return TOKEN_COUNTS[count]


class ImageQueries(nn.Module):
    """Projects image tokens to queries, with weights of their own for every decoder layer.

    Args:
        channels: width of the image tokens.
        embed_dims: width of the decoder.
        num_layers: number of decoder layers.
        count: image queries per image, 1, 5, 14 or 30.
    """

    def __init__(self, channels: int, embed_dims: int, num_layers: int, *, count: int) -> None:
        super().__init__()
        _steps(count)
        self.count = count
        self.projections = nn.ModuleList(nn.Linear(channels, embed_dims) for _ in range(num_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(num_layers))
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform weights; biases keep PyTorch's default. Source: the official initialisation."""
        for projection in self.projections:
            nn.init.xavier_uniform_(cast(nn.Linear, projection).weight)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """The queries of every layer, always from the raw tokens.

        Args:
            tokens: (B, N, channels) with N >= count; the first `count` are used, since a larger pyramid begins with
                the smaller one.

        Returns:
            One (B, count, embed_dims) tensor per decoder layer.
        """
        if tokens.dim() != 3 or tokens.shape[1] < self.count:
            raise ValueError(f'{self.count} image queries need image tokens (B, {self.count} or more, C), '
                             f'got {tuple(tokens.shape)}')
        tokens = tokens[:, :self.count]
        return [norm(projection(tokens)) for projection, norm in zip(self.projections, self.norms)]
