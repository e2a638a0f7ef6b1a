"""Masked-attention decoder: queries that gather evidence inside their own masks."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.layers import Mask2FormerTransformerDecoder, SinePositionalEncoding
from mmengine.config import ConfigDict
from mmengine.model import caffe2_xavier_init
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from frozenmm.errors import UserError
from frozenmm.ops.mask_pool import mask_pool
from frozenmm.segmentation.mask2former.padding import Padding

Size = tuple[int, int]


@dataclass
class MaskProposals:
    """What a mask generator says about a batch.

    Attributes:
        mask_logits: (B, Q, H/4, W/4); a pixel belongs to the mask where the logit is > 0.
        embeddings: (B, Q, C) float, what the query saw; a mask classifier turns it into class logits.
    """

    mask_logits: Tensor
    embeddings: Tensor


@dataclass
class Memory:
    """What one decoder layer attends to: `tokens` (B, N, C) are the values, `tokens + position` the keys."""

    tokens: Tensor
    position: Tensor
    size: Size


def attend(attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor,
           blocked: Tensor | None = None) -> Tensor:
    """Multi-head attention with the weights of an `nn.MultiheadAttention`, through the fused kernel.

    The module itself would repeat the mask for every head; here the heads share it.

    Args:
        attention: the weights; input and output widths are equal.
        query: (B, Q, C).
        key: (B, N, C).
        value: (B, N, C).
        blocked: (B, Q, N) bool, True where a query must not look; no row may be all True.

    Returns:
        (B, Q, C).
    """
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    queries, keys, values = (F.linear(x, w, b).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
                             for x, w, b in zip((query, key, value), weights, biases))
    mask = None if blocked is None else ~blocked[:, None]
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def mlp(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Three linear layers with ReLU between."""
    return nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                         nn.Linear(hidden, out_channels))


class MaskedAttentionDecoder(nn.Module):
    """Transformer decoder of Mask2Former whose queries carry mask-pooled features for an open-vocabulary classifier.

    Source: Mask2Former section 3.2; FC-CLIP section 3.3 (mask pooling). Weight names are those of mmdet's
    `Mask2FormerHead`, plus `pool_proj`.

    Args:
        in_channels: width of the pixel decoder's maps.
        channels: width of the queries; equal to `mask_channels`, because pooled mask features are added to them.
        mask_channels: width of the mask features.
        num_queries: Q.
        num_layers: decoder layers; one prediction more is made, on the bare queries.
        num_heads: attention heads.
        feedforward_channels: hidden width of the feed-forward networks.
        num_levels: maps that the layers take in turn, from coarse to fine.
        with_cp: recompute the layers' activations in the backward pass, to save memory.
    """

    def __init__(self, in_channels: int = 256, *, channels: int = 256, mask_channels: int = 256, num_queries: int = 250,
                 num_layers: int = 9, num_heads: int = 8, feedforward_channels: int = 2048, num_levels: int = 3,
                 with_cp: bool = False) -> None:
        super().__init__()
        if channels != mask_channels:
            raise UserError(f'pooled mask features are added to the queries, so channels ({channels}) and '
                            f'mask_channels ({mask_channels}) must be equal')
        attention = dict(embed_dims=channels, num_heads=num_heads, dropout=0.0, batch_first=True)
        feedforward = dict(embed_dims=channels, feedforward_channels=feedforward_channels, num_fcs=2, ffn_drop=0.0,
                           act_cfg=dict(type='ReLU', inplace=True))
        layer = ConfigDict(self_attn_cfg=dict(attention), cross_attn_cfg=dict(attention), ffn_cfg=feedforward)
        self.transformer_decoder = Mask2FormerTransformerDecoder(num_layers=num_layers, layer_cfg=layer)
        self.input_projs = nn.ModuleList(
            nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)
            for _ in range(num_levels))
        self.positions = SinePositionalEncoding(channels // 2, normalize=True)
        self.query_feat = nn.Embedding(num_queries, channels)
        self.query_embed = nn.Embedding(num_queries, channels)
        self.level_embed = nn.Embedding(num_levels, channels)
        self.mask_embed = mlp(channels, channels, mask_channels)
        self.pool_proj = nn.Sequential(nn.LayerNorm(mask_channels), nn.Linear(mask_channels, channels))
        self.with_cp = with_cp
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform layer matrices and caffe2-style input projections, as the official code draws them."""
        for parameter in self.transformer_decoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for projection in self.input_projs:
            if isinstance(projection, nn.Conv2d):
                caffe2_xavier_init(projection, bias=0)

    @property
    def num_layers(self) -> int:
        """Decoder layers, without the prediction on the bare queries."""
        return len(self.transformer_decoder.layers)

    def position(self, feature_map: Tensor) -> Tensor:
        """Sine position encoding (1, h*w, C) of a map (B, C, h, w)."""
        zeros = torch.zeros(1, *feature_map.shape[-2:], dtype=torch.bool, device=feature_map.device)
        return self.positions(zeros).flatten(2).transpose(1, 2)

    def memories(self, levels: Sequence[Tensor]) -> list[Memory]:
        """One memory per level from the pixel decoder's maps (B, C, h, w), coarse to fine."""
        if len(levels) != len(self.input_projs):
            raise ValueError(f'the decoder takes {len(self.input_projs)} maps from coarse to fine, got {len(levels)}')
        return [Memory(projection(level).flatten(2).transpose(1, 2) + embedding, self.position(level),
                       (level.shape[-2], level.shape[-1]))
                for projection, level, embedding in zip(self.input_projs, levels, self.level_embed.weight)]

    def forward(self, levels: Sequence[Tensor], mask_features: Tensor, *,
                all_layers: bool | None = None, padding: Padding | None = None) -> list[MaskProposals]:
        """Mask proposals.

        Args:
            levels: maps (B, in_channels, h, w) of strides 32, 16, 8.
            mask_features: (B, mask_channels, H/4, W/4).
            all_layers: return the proposals of every layer, the bare queries first; by default in training only.
            padding: cells to leave out of attention and pooling; None: padding takes part, as officially.

        Returns:
            The proposals of all layers, or of the last one only.
        """
        memories = self.memories(levels)
        per_layer = [memories[i % len(memories)] for i in range(self.num_layers)]
        return self.decode(per_layer, mask_features, all_layers, padding=padding)

    def decode(self, memories: Sequence[Memory], mask_features: Tensor, all_layers: bool | None = None,
               inject: Callable[[int, Callable[[Size], Tensor]], Tensor | None] | None = None,
               padding: Padding | None = None) -> list[MaskProposals]:
        """Run the layers.

        Args:
            memories: one per layer.
            mask_features: (B, mask_channels, H/4, W/4).
            all_layers: see `forward`.
            inject: called with a layer's index and a function that gives its mask logits (B, Q, h, w) at a size (h, w);
                what it returns (B, Q, C) is added to the queries before the next layer.
            padding: see `forward`.
        """
        all_layers = self.training if all_layers is None else all_layers
        maker = MaskMaker(self.mask_embed, mask_features, keep=all_layers, padding=padding)
        count = mask_features.shape[0]
        query = self.query_feat.weight.expand(count, -1, -1)
        query_position = self.query_embed.weight.expand(count, -1, -1)
        normed = self.transformer_decoder.post_norm(query)
        proposals = [self.propose(normed, maker)] if all_layers else []
        for index, (layer, memory) in enumerate(zip(self.transformer_decoder.layers, memories)):
            blocked = maker.blocked(normed, memory.size)
            arguments = (layer, query, query_position, memory.tokens, memory.position, blocked)
            if self.with_cp and self.training and torch.is_grad_enabled():
                query = checkpoint(run_layer, *arguments, use_reentrant=False)
            else:
                query = run_layer(*arguments)
            normed = self.transformer_decoder.post_norm(query)
            last = index == self.num_layers - 1
            if all_layers or last:
                proposals.append(self.propose(normed, maker))
            if inject is not None and not last:
                addition = inject(index, partial(maker.at, normed))
                query = query if addition is None else query + addition
        return proposals

    def propose(self, normed: Tensor, maker: MaskMaker) -> MaskProposals:
        """Masks and embeddings (B, Q, C) of normalised queries."""
        mask_logits = maker.full(normed)
        inside = mask_logits if maker.padding is None else maker.padding.cut(mask_logits)
        return MaskProposals(mask_logits, self.pool_proj(mask_pool(maker.features, inside)) + normed)


def run_layer(layer: Any, query: Tensor, query_position: Tensor, tokens: Tensor, token_position: Tensor,
              blocked: Tensor) -> Tensor:
    """One post-norm layer: masked cross-attention, self-attention, feed-forward.

    Args:
        layer: mmdet's `Mask2FormerTransformerDecoderLayer`, used for its weights.
        query: (B, Q, C).
        query_position: (B, Q, C), added to queries and self-attention keys.
        tokens: (B, N, C).
        token_position: (1 or B, N, C), added to the cross-attention keys.
        blocked: (B, Q, N) bool.
    """
    found = attend(layer.cross_attn.attn, query + query_position, tokens + token_position, tokens, blocked)
    query = layer.norms[0](query + found)
    placed = query + query_position
    query = layer.norms[1](query + attend(layer.self_attn.attn, placed, placed, query))
    return layer.norms[2](layer.ffn(query))


class MaskMaker:
    """Mask logits of queries, at full or at level resolution.

    Resizing and the product over channels are both linear and commute. When only the last layer's masks are wanted, the
    mask features are resized once per level instead of every layer's masks, which saves most of the products.
    """

    def __init__(self, mask_embed: nn.Module, features: Tensor, *, keep: bool, padding: Padding | None = None) -> None:
        self.mask_embed = mask_embed
        self.features = features
        self.keep = keep
        self.padding = padding
        self._resized: dict[tuple[str, ...], Tensor] = {}
        self._latest: tuple[Tensor, Tensor] | None = None

    def full(self, normed: Tensor) -> Tensor:
        """(B, Q, H/4, W/4)."""
        logits = torch.einsum('bqc,bchw->bqhw', self.mask_embed(normed), self.features)
        self._latest = (normed, logits)
        return logits

    def at(self, normed: Tensor, size: Size) -> Tensor:
        """(B, Q, *size), the full logits resized bilinearly; cut at the padding if that is left out."""
        logits = self._resized_logits(normed, size)
        return logits if self.padding is None else self.padding.cut(logits)

    def _resized_logits(self, normed: Tensor, size: Size) -> Tensor:
        if self.keep and self._latest is not None and self._latest[0] is normed:
            return F.interpolate(self._latest[1], size=size, mode='bilinear', align_corners=False)
        name = tuple(map(str, size))  # sizes of an exported graph have no hash
        if name not in self._resized:
            self._resized[name] = F.interpolate(self.features, size=size, mode='bilinear', align_corners=False)
        return torch.einsum('bqc,bchw->bqhw', self.mask_embed(normed), self._resized[name])

    @torch.no_grad()
    def outside(self, normed: Tensor, size: Size) -> Tensor:
        """(B, Q, h*w) bool: positions outside the query's mask."""
        return self.at(normed, size).flatten(2).sigmoid() < 0.5

    def blocked(self, normed: Tensor, size: Size) -> Tensor:
        """(B, Q, h*w) bool: where a query must not look; a query without any mask may look everywhere."""
        outside = self.outside(normed, size)
        return outside & ~outside.all(-1, keepdim=True)
