"""Deformable attention built for more levels than it is called with, as the official kernel computes it."""
from __future__ import annotations

import torch
from torch import Tensor

from frozenmm.ops import MultiScaleDeformableAttention, ms_deform_attn


class FlatDeformableAttention(MultiScaleDeformableAttention):
    """Weights for `num_levels` maps, called with one.

    The official kernel takes the number of levels from the maps and reads the locations and weights, made for more
    levels, as if they lay without gaps: output (b, q, head) uses block number (b * Q + q) * heads + head of the larger
    tensors, which belongs to another query, head or even image. So results depend on the batch, and the weights in use
    do not sum to one. Official FrozenSeg checkpoints were trained so and need it.

    Parity: golden case `sam_deform_attn_flat`.
    """

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                identity: Tensor | None = None, query_pos: Tensor | None = None,
                key_padding_mask: Tensor | None = None, reference_points: Tensor | None = None,
                spatial_shapes: Tensor | None = None, level_start_index: Tensor | None = None,
                **ignored: object) -> Tensor:
        """Attention of the queries (B, Q, C) to one map, plus the identity; arguments as in the parent class.

        Raises:
            ValueError: more than one map, missing points or shapes, or `batch_first=False`.
        """
        if reference_points is None or spatial_shapes is None or len(spatial_shapes) != 1 or not self.batch_first:
            raise ValueError('flat deformable attention takes one map, reference points and batch-first queries')
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        batch, queries, _ = query.shape
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        projected = self.value_proj(value)
        if key_padding_mask is not None:
            projected = projected.masked_fill(key_padding_mask[..., None], 0.0)
        offsets = self.sampling_offsets(query).view(batch, queries, heads, levels, points, 2)
        weights = self.attention_weights(query).unflatten(-1, (heads, levels * points)).softmax(-1)
        locations = reference_points[:, :, None, :1, None] + offsets / spatial_shapes.flip(-1)[0]
        used = batch * queries * heads * points
        locations = locations.reshape(-1)[:2 * used].view(batch, queries, heads, 1, points, 2)
        weights = weights.reshape(-1)[:used].view(batch, queries, heads, 1, points)
        start = torch.zeros_like(spatial_shapes[:, 0])
        out = ms_deform_attn(projected.unflatten(-1, (heads, -1)), spatial_shapes, start, locations, weights)
        return self.dropout(self.output_proj(out)) + identity
