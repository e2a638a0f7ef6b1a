"""DINO's decoder with image queries.

Source: Frozen-DETR, section 3.2. Officially the image queries run through every layer like object queries and are cut
off behind it; nothing reads their rows but the self-attention of the object queries. So only the keys and values of the
self-attention see them here, which gives the same numbers (a test compares both).
"""
from __future__ import annotations

from typing import Any

import torch
from mmdet.models.layers import MLP, coordinate_to_encoding, inverse_sigmoid
from mmdet.models.layers.transformer import DinoTransformerDecoder
from torch import Tensor, nn

from frozenmm.detection.frozen_detr.image_queries import LayerImageQueries
from frozenmm.detection.frozen_detr.levels import Levels

REFINE_EPS = 1e-3
"""Clamp of the inverse sigmoid in box refinement, official code and mmdet alike."""


class ImageQueryDecoder(DinoTransformerDecoder):
    """mmdet's DINO decoder plus image queries; sine features follow `embed_dims` instead of a fixed 128."""

    ref_point_head: Any

    def _init_layers(self) -> None:
        super()._init_layers()
        # OneDL's fork of mmdet doubles the width of the sine features; official and upstream weights have half of it
        if self.ref_point_head.layers[0].in_features != 2 * self.embed_dims:
            self.ref_point_head = MLP(2 * self.embed_dims, self.embed_dims, self.embed_dims, 2)

    def query_positions(self, references: Tensor, valid_ratios: Tensor) -> Tensor:
        """Position embedding of reference boxes.

        Args:
            references: (B, N, 4) cxcywh in units of the unpadded image.
            valid_ratios: (B, L, 2); the first level counts.

        Returns:
            (B, N, C).
        """
        boxes = references * valid_ratios[:, :1].repeat(1, 1, 2)
        return self.ref_point_head(coordinate_to_encoding(boxes, num_feats=self.embed_dims // 2))

    def forward(self, query: Tensor, memory: Tensor, levels: Levels, *, self_attn_mask: Tensor | None,
                reference_points: Tensor, reg_branches: nn.ModuleList,
                image_queries: LayerImageQueries | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states and reference boxes of every layer.

        Args:
            query: (B, Q, C) object queries, denoising ones first.
            memory: (B, N, C) of the encoder.
            levels: the levels that it covers.
            self_attn_mask: (Q, Q + T) bool, True = may not attend; image queries are the last columns.
            reference_points: (B, Q, 4) cxcywh in 0..1.
            reg_branches: box branch of every layer.
            image_queries: T of them; None without image queries.

        Returns:
            (layers, B, Q, C) after the shared norm, and (layers + 1, B, Q, 4): input first, then the refined boxes, not
            detached ("look forward twice").
        """
        states, references = [], [reference_points]
        valid_ratios = levels.valid_ratios
        shared = dict(value=memory, key_padding_mask=levels.mask, spatial_shapes=levels.spatial_shapes,
                      level_start_index=levels.start_index)
        # the boxes of the image queries are never refined, so one embedding serves all layers
        image_pos = None if image_queries is None else self.query_positions(image_queries.references, valid_ratios)
        for index, layer in enumerate(self.layers):
            query_pos = self.query_positions(reference_points, valid_ratios)
            inputs = dict(shared, query_pos=query_pos,
                          reference_points=reference_points[:, :, None] * valid_ratios[:, None].repeat(1, 1, 1, 2))
            if image_queries is None or image_pos is None:
                query = layer(query, self_attn_mask=self_attn_mask, valid_ratios=valid_ratios, **inputs)
            else:
                query = _layer_with_image_queries(layer, query, image_queries.queries[index], image_pos, self_attn_mask,
                                                  inputs)
            refined = (reg_branches[index](query) + inverse_sigmoid(reference_points, eps=REFINE_EPS)).sigmoid()
            reference_points = refined.detach()
            states.append(self.norm(query))
            references.append(refined)
        return torch.stack(states), torch.stack(references)


def _layer_with_image_queries(layer: Any, query: Tensor, image_query: Tensor, image_pos: Tensor,
                              mask: Tensor | None, inputs: dict[str, Any]) -> Tensor:
    """A post-norm decoder layer of mmdet whose self-attention also reads image queries.

    Args:
        layer: `DeformableDetrTransformerDecoderLayer`.
        query: (B, Q, C).
        image_query: (B, T, C).
        image_pos: (B, T, C) position embedding of the image queries.
        mask: (Q, Q + T) bool or None.
        inputs: the other inputs of the cross-attention; `query_pos` serves the self-attention too.
    """
    keys = torch.cat([query, image_query.to(query.dtype)], 1)
    query_pos = inputs['query_pos']
    query = layer.self_attn(query=query, key=keys, value=keys, query_pos=query_pos,
                            key_pos=torch.cat([query_pos, image_pos], 1), attn_mask=mask)
    query = layer.norms[1](layer.cross_attn(query=layer.norms[0](query), **inputs))
    return layer.norms[2](layer.ffn(query))
