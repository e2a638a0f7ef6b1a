"""What may stand where the last block's attention stood: each kind mixes the values of the tokens in its own way.

Letters: B images (or windows), L tokens, d width of a head, h x w cells of the patch grid.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.lookup import lookup
from frozenmm.segmentation.options import built


@dataclass(frozen=True)
class Surroundings:
    """What a kind of attention may need besides query, key and value.

    Attributes:
        grid: rows and columns of patches, the last tokens of the sequence; class token and registers stand before.
        out: the block's output projection, (..., D) to (..., D).
        proxy: (B, M, M) float32 rows of another network's attention (`proxy_attention`) over its own grid.
        proxy_grid: rows and columns of that.
    """

    grid: tuple[int, int]
    out: Callable[[Tensor], Tensor]
    proxy: Tensor | None = None
    proxy_grid: tuple[int, int] | None = None


class LastAttention(ABC):
    """A kind of attention for the last block.

    Attributes:
        reads: which of `'q'`, `'k'`, `'v'` it looks at; the others are not computed.
    """

    reads = 'qkv'

    @abstractmethod
    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """Mixed values (B, heads, M, d) of (B, heads, L, d); M is L, or the cells of the proxy."""

    def weights(self, query: Tensor, key: Tensor, around: Surroundings) -> Tensor:
        """Weights (B, heads, L, L) that meet the values: what comes out where a token's value is its own axis."""
        tokens = query.shape[2]
        axes = torch.eye(tokens, dtype=query.dtype, device=query.device).expand(*query.shape[:2], -1, -1)
        return self.mix(query, key, axes, around)


class PlainAttention(LastAttention):
    """The block's own: softmax(q k / sqrt d)."""

    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """See `LastAttention.mix`."""
        return F.scaled_dot_product_attention(query, key, value)


class ValueAttention(LastAttention):
    """Every token keeps its own value. Source: MaskCLIP, section 3.2."""

    reads = 'v'

    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """See `LastAttention.mix`."""
        return value


class SelfSelfAttention(LastAttention):
    """softmax(q q / sqrt d) + softmax(k k / sqrt d); rows sum to 2. Source: SCLIP, equation 4."""

    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """See `LastAttention.mix`."""
        attend = F.scaled_dot_product_attention
        return attend(query, query, value) + attend(key, key, value)


class KeyAttention(LastAttention):
    """softmax(k k / sqrt d). Source: NACLIP, its ablation `kk`."""

    reads = 'kv'

    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """See `LastAttention.mix`."""
        return F.scaled_dot_product_attention(key, key, value)


class NeighbourAttention(LastAttention):
    """softmax(k k / sqrt d + G), G a Gaussian of the distance of two cells. Source: NACLIP, equation 5.

    Args:
        std: of the Gaussian, in cells.
    """

    reads = 'kv'

    def __init__(self, std: float = 5.0) -> None:
        self.std = positive('std', std)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """See `LastAttention.mix`."""
        bias = neighbour_bias(around.grid, self.std, key.shape[2]).to(key)
        return F.scaled_dot_product_attention(key, key, value, attn_mask=bias)


class NeighbourOnlyAttention(LastAttention):
    """softmax(c G): nearness alone, c the image's mean |q| |k| / sqrt d. Source: NACLIP, its ablation `nonly`.

    Args:
        std: of the Gaussian, in cells.
    """

    def __init__(self, std: float = 5.0) -> None:
        self.std = positive('std', std)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """See `LastAttention.mix`."""
        lengths = query.norm(dim=-1).mean(-1) * key.norm(dim=-1).mean(-1)
        scale = lengths.mean(1) * query.shape[-1] ** -0.5
        bias = neighbour_bias(around.grid, self.std, key.shape[2]).to(key)
        return (scale[:, None, None, None] * bias).softmax(-1) @ value


class RecursiveAttention(LastAttention):
    """Attention, then attention by the cosines of its own output, head by head. Source: RADSeg (SCRA).

    Args:
        scale: of the cosines; negative ones are dropped.
    """

    def __init__(self, scale: float = 10.0) -> None:
        self.scale = positive('scale', scale)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """See `LastAttention.mix`."""
        first = F.scaled_dot_product_attention(query, key, value)
        heads = query.shape[1]
        output = around.out(first.transpose(1, 2).flatten(2)).unflatten(2, (heads, -1)).transpose(1, 2)
        unit = F.normalize(output.float(), dim=-1)
        similarity = unit @ unit.transpose(-1, -2) * self.scale
        weights = similarity.masked_fill(similarity < 0, -torch.inf).softmax(-1)
        return weights.to(value) @ value


class ProxyAttention(LastAttention):
    """The similarity of another network's features, the same for all heads. Source: ProxyCLIP, equations 3 to 5.

    Args:
        beta: times the mean similarity is taken off.
        gamma: scales what is left; negative values are dropped.
        shared_mean: one mean for all windows of an image (Trident) instead of one per window.
        compat: see `proxy_attention`.
    """

    reads = 'v'

    def __init__(self, beta: float = 1.2, gamma: float = 3.0, *, shared_mean: bool = False,
                 compat: bool = False) -> None:
        self.beta, self.gamma, self.shared_mean = beta, positive('gamma', gamma), shared_mean
        self.compat = compat

    def rows(self, features: Tensor, mean: Tensor) -> Tensor:
        """`proxy_attention` with this kind's options."""
        return proxy_attention(features, mean, beta=self.beta, gamma=self.gamma, compat=self.compat)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, around: Surroundings) -> Tensor:
        """See `LastAttention.mix`."""
        if around.proxy is None or around.proxy_grid is None:
            raise UserError("attention 'proxy' needs a proxy tower; give proxy=dict(type='frozenmm.DINOTower', ...)")
        batch, heads, _, width = value.shape
        cells = value.transpose(-1, -2).reshape(batch, heads * width, *around.grid)
        if around.proxy_grid != around.grid:
            cells = F.interpolate(cells, around.proxy_grid, mode='bilinear', align_corners=False)
        mixed = around.proxy.to(value) @ cells.flatten(2).transpose(1, 2)
        return mixed.unflatten(2, (heads, width)).transpose(1, 2)


ATTENTIONS: dict[str, type[LastAttention]] = {
    'plain': PlainAttention, 'value': ValueAttention, 'self_self': SelfSelfAttention, 'key': KeyAttention,
    'neighbour': NeighbourAttention, 'neighbour_only': NeighbourOnlyAttention, 'recursive': RecursiveAttention,
    'proxy': ProxyAttention}
"""Names for configs."""


def attention_of(options: str | Mapping[str, object] | LastAttention) -> LastAttention:
    """A kind of attention from its name, or from `dict(type=name, ...)` with its options."""
    if isinstance(options, LastAttention):
        return options
    options = dict(type=options) if isinstance(options, str) else dict(options)
    if 'type' not in options:
        raise UserError(f'attention needs a type, one of {list(ATTENTIONS)}, got {options}')
    return built(ATTENTIONS[lookup(str(options.pop('type')), ATTENTIONS, 'attention of the last block')], options)


def positive(name: str, value: float) -> float:
    """The value, if it is a number above 0.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, int | float) or value <= 0:
        raise UserError(f'{name} must be a number above 0, got {value!r}')
    return value


@lru_cache(maxsize=16)
def gaussian_window(grid: tuple[int, int], std: float) -> Tensor:
    """(2h-1, 2w-1) float32: exp(-r^2 / (2 std^2)) of every offset between two cells of a grid; 1 in the middle."""
    rows, columns = (torch.arange(1 - side, side, dtype=torch.float64) for side in grid)
    return torch.exp(-(rows[:, None] ** 2 + columns ** 2) / (2 * std ** 2)).float()


@lru_cache(maxsize=16)
def neighbour_bias(grid: tuple[int, int], std: float, tokens: int) -> Tensor:
    """(tokens, tokens) float32: `gaussian_window` of every pair of cells; 0 for the tokens before the cells."""
    height, width = grid
    rows = torch.arange(height)[:, None] - torch.arange(height) + height - 1
    columns = torch.arange(width)[:, None] - torch.arange(width) + width - 1
    table = gaussian_window(grid, std)[rows[:, None, :, None], columns[None, :, None, :]].flatten(2).flatten(0, 1)
    before = tokens - height * width
    return F.pad(table, (before, 0, before, 0))


def mean_similarity(features: Tensor) -> Tensor:
    """(B,) mean cosine over all pairs of cells of maps (B, C, h, w), without the table of pairs."""
    return F.normalize(features.float().flatten(2), dim=1).mean(2).square().sum(1)


def proxy_attention(features: Tensor, mean: Tensor, *, beta: float = 1.2, gamma: float = 3.0,
                    compat: bool = False) -> Tensor:
    """Rows of attention from the similarity of another network's features.

    Args:
        features: (B, C, h, w).
        mean: (B,) or (1,), `mean_similarity` of each map, or of all windows of an image.
        beta: times the mean similarity is taken off.
        gamma: scales what is left; negative values are dropped.
        compat: as ProxyCLIP's code: a cell that is less similar to itself than beta times the mean gives NaN instead of
            seeing itself alone.

    Returns:
        (B, h*w, h*w) float32, rows sum to 1.
    """
    unit = F.normalize(features.float().flatten(2), dim=1)
    logits = (unit.transpose(1, 2) @ unit - beta * mean[:, None, None]) * gamma
    dropped = logits < 0
    if not compat:
        dropped.diagonal(dim1=1, dim2=2).fill_(False)
    return logits.masked_fill_(dropped, -torch.inf).softmax(-1)
