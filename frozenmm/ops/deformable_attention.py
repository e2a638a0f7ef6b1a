"""The module `MultiScaleDeformableAttention`: mmcv's parameters and semantics on our fused operator."""
from __future__ import annotations

import math
from typing import Protocol

import torch
from mmengine.model import BaseModule, constant_init, xavier_init
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.ops.ms_deform_attn import ms_deform_attn_fused
from frozenmm.ops.traced_attention import Sizes, grid_sample_attention
from frozenmm.registry import MODELS


class AttentionLayers(Protocol):
    """What mmcv's module and ours have in common."""

    num_heads: int
    num_levels: int
    num_points: int
    batch_first: bool
    value_proj: nn.Linear
    sampling_offsets: nn.Linear
    attention_weights: nn.Linear
    output_proj: nn.Linear
    dropout: nn.Dropout


def attend(module: AttentionLayers, query: Tensor, value: Tensor, *, key_padding_mask: Tensor | None,
           reference_points: Tensor | None, spatial_shapes: Tensor | Sizes | None,
           level_start_index: Tensor | None) -> Tensor:
    """Projections and deformable attention of a module that has mmcv's four linear layers and sizes.

    Args:
        module: the layers and sizes; ours or mmcv's module.
        query: (B, Q, C), position added.
        value: (B, S, C).
        key_padding_mask: (B, S) bool, True at padding, whose projected values become zero.
        reference_points: (B, Q, L, 2) or (B, Q, L, 4), 0 to 1; L may be 1 for all levels alike, and B 1 for all images.
        spatial_shapes: (L, 2) int32 or int64 as (height, width); or pairs, see `traced_attention`.
        level_start_index: (L,) int32 or int64, or None to compute it.

    Returns:
        (B, Q, C) after the output projection.

    Raises:
        ValueError: reference points or shapes are missing, or shapes do not fit together.
    """
    batch, queries, _ = query.shape
    heads, levels, points = module.num_heads, module.num_levels, module.num_points
    if reference_points is None or spatial_shapes is None:
        raise ValueError('MultiScaleDeformableAttention needs reference_points and spatial_shapes')
    if reference_points.dim() != 4 or reference_points.shape[-1] not in (2, 4):
        raise ValueError('reference_points must have shape [B, Q, L, 2] or [B, Q, L, 4], '
                         f'got {list(reference_points.shape)}')
    projected = module.value_proj(value)
    if key_padding_mask is not None:
        projected = projected.masked_fill(key_padding_mask[..., None], 0.0)
    real = torch.float64 if projected.dtype == torch.float64 else torch.float32
    offsets = module.sampling_offsets(query).view(batch, queries, heads, levels, points, 2)
    logits = module.attention_weights(query).view(batch, queries, heads, levels * points)
    # one reference for all levels, or for the whole batch, stands for each of them
    reference_points = reference_points.expand(batch if reference_points.shape[0] == 1 else -1, -1,
                                               levels if reference_points.shape[2] == 1 else -1, -1)
    points_of_queries = reference_points.to(real), offsets.to(real), logits.to(real)
    projected = projected.view(batch, value.shape[1], heads, -1)
    if not isinstance(spatial_shapes, Tensor):
        return module.output_proj(grid_sample_attention(projected, spatial_shapes, *points_of_queries))
    if level_start_index is None:
        level_start_index = spatial_shapes.prod(1).cumsum(0) - spatial_shapes.prod(1)
    return module.output_proj(ms_deform_attn_fused(projected, spatial_shapes.long(), level_start_index.long(),
                                                   *points_of_queries))


def attend_and_add(module: AttentionLayers, query: Tensor, value: Tensor | None, identity: Tensor | None,
                   query_pos: Tensor | None, key_padding_mask: Tensor | None, reference_points: Tensor | None,
                   spatial_shapes: Tensor | Sizes | None, level_start_index: Tensor | None) -> Tensor:
    """The forward of mmcv's module: defaults, axis order, attention, dropout and the identity branch.

    Args:
        module: the layers and sizes.
        query: (Q, B, C), or (B, Q, C) where the module is `batch_first`, as all of these.
        value: (S, B, C).
        identity: (Q, B, C).
        query_pos: (Q, B, C).
        key_padding_mask: (B, S) bool.
        reference_points: (B, Q, L, 2) or (B, Q, L, 4).
        spatial_shapes: (L, 2) int64.
        level_start_index: (L,) int64.
    """
    value = query if value is None else value
    identity = query if identity is None else identity
    query = query if query_pos is None else query + query_pos
    if not module.batch_first:
        query, value = query.transpose(0, 1), value.transpose(0, 1)
    out = attend(module, query, value, key_padding_mask=key_padding_mask, reference_points=reference_points,
                 spatial_shapes=spatial_shapes, level_start_index=level_start_index)
    return module.dropout(out if module.batch_first else out.transpose(0, 1)) + identity


@MODELS.register_module()
class MultiScaleDeformableAttention(BaseModule):
    """Deformable attention with mmcv's parameter names, defaults and initialisation.

    Checkpoints of mmcv's module load unchanged, and configs that build it work with
    `type='frozenmm.MultiScaleDeformableAttention'`.

    Args:
        embed_dims: channels C of queries, values and output.
        num_heads: attention heads; they divide the projected channels among them.
        num_levels: feature maps.
        num_points: points that a query samples in each map and head.
        im2col_step: accepted for mmcv's configs and ignored; no operator of ours has it.
        dropout: probability of the dropout before the identity is added.
        batch_first: tensors are (B, N, C) instead of (N, B, C).
        norm_cfg: accepted for mmcv's configs and ignored, as mmcv does.
        init_cfg: initialisation of mmengine's `BaseModule`.
        value_proj_ratio: projected channels over `embed_dims`.

    Raises:
        UserError: the heads do not divide the channels.

    Source: Zhu et al., Deformable DETR (2021), section 4.1; initialisation as in its appendix A.4.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, num_levels: int = 4, num_points: int = 4,
                 im2col_step: int = 64, dropout: float = 0.1, batch_first: bool = False,
                 norm_cfg: dict | None = None, init_cfg: dict | None = None, value_proj_ratio: float = 1.0) -> None:
        super().__init__(init_cfg)
        value_channels = int(embed_dims * value_proj_ratio)
        if embed_dims % num_heads or value_channels % num_heads:
            raise UserError(f'num_heads={num_heads} must divide embed_dims={embed_dims} and the '
                            f'{value_channels} projected channels')
        self.embed_dims, self.num_heads = embed_dims, num_heads
        self.num_levels, self.num_points = num_levels, num_points
        self.batch_first = batch_first
        self.dropout = nn.Dropout(dropout)
        self.sampling_offsets = nn.Linear(embed_dims, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dims, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dims, value_channels)
        self.output_proj = nn.Linear(value_channels, embed_dims)
        self.init_weights()

    def init_weights(self) -> None:
        """Heads look in evenly spread directions, the k-th point k cells away; all weights equal."""
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        pattern = directions[:, None, None] * steps[:, None]
        constant_init(self.sampling_offsets, 0.)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(pattern.expand(-1, self.num_levels, -1, -1).flatten())
        constant_init(self.attention_weights, val=0., bias=0.)
        xavier_init(self.value_proj, distribution='uniform', bias=0.)
        xavier_init(self.output_proj, distribution='uniform', bias=0.)
        self._is_init = True

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                identity: Tensor | None = None, query_pos: Tensor | None = None,
                key_padding_mask: Tensor | None = None, reference_points: Tensor | None = None,
                spatial_shapes: Tensor | None = None, level_start_index: Tensor | None = None,
                **ignored: object) -> Tensor:
        """Attention of the queries to the maps, plus the identity.

        Args:
            query: (Q, B, C), or (B, Q, C) with `batch_first`, as all of these.
            key: not used; here for the signature that transformer layers call.
            value: (S, B, C), default `query`.
            identity: added to the output; default `query` without its position.
            query_pos: added to `query`, (Q, B, C).
            key_padding_mask: (B, S) bool, True at padding.
            reference_points: (B, Q, L, 2) or (B, Q, L, 4), 0 to 1.
            spatial_shapes: (L, 2) int64 as (height, width).
            level_start_index: (L,) int64.
            ignored: what transformer layers hand to every kind of attention (mmcv's module ignores it too).

        Returns:
            As `query`.
        """
        return attend_and_add(self, query, value, identity, query_pos, key_padding_mask, reference_points,
                              spatial_shapes, level_start_index)
