"""Mmdet's deformable transformers with sizes of maps that `torch.export` can follow.

Mmdet makes a tensor of the sizes and reads them back, which fixes a traced graph to one size. The functions here
compute the same from the shapes of the maps; they stand in for mmdet's while `sizes_from_shapes` lasts.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from mmdet.models.detectors import DeformableDETR, dino
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.models.layers.transformer import DeformableDetrTransformerEncoder
from torch import Tensor

from frozenmm.ops.mask_pool import pool_definition
from frozenmm.ops.traced_attention import Sizes
from frozenmm.segmentation.mask2former.pixel_decoder import PixelDecoder


@contextmanager
def sizes_from_shapes() -> Iterator[None]:
    """Let mmdet's DINO, Deformable DETR and Mask2Former take sizes from shapes; images fill their batch.

    Mask pooling is written in standard operators meanwhile.
    """
    with ExitStack() as stack:
        for owner, name, function in (
                (DeformableDETR, 'pre_transformer', _pre_transformer),
                (DeformableDETR, 'gen_encoder_output_proposals', _proposals),
                (DeformableDetrTransformerEncoder, 'get_encoder_reference_points', staticmethod(_references)),
                (MSDeformAttnPixelDecoder, 'forward', _pixel_decoder)):
            stack.enter_context(mock.patch.object(owner, name, function))
        stack.enter_context(mock.patch.object(torch.ops.frozenmm, 'mask_pool', pool_definition))
        # `len` of a tensor is a number of this batch, its shape one of any
        stack.enter_context(mock.patch.object(dino, 'len', lambda value: value.shape[0], create=True))
        yield


def _pixel_decoder(self: Any, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    if self.num_input_levels != self.num_encoder_levels + 1 or self.num_outs != self.num_encoder_levels:
        raise ValueError(f'a pixel decoder of {self.num_input_levels} maps, {self.num_encoder_levels} of them encoded, '
                         'cannot be exported; that of Mask2Former takes four and encodes three')
    self.with_cp = False
    return PixelDecoder.forward(self, feats)


def _pre_transformer(self: Any, mlvl_feats: Sequence[Tensor], batch_data_samples: Any = None) -> tuple[dict, dict]:
    """See mmdet; nothing is padded."""
    places = [self.positional_encoding(None, input=feat).flatten(2).transpose(1, 2) + embedding
              for feat, embedding in zip(mlvl_feats, self.level_embed)]
    shared = dict(spatial_shapes=[(feat.shape[-2], feat.shape[-1]) for feat in mlvl_feats], level_start_index=None,
                  valid_ratios=mlvl_feats[0].new_ones(mlvl_feats[0].shape[0], len(mlvl_feats), 2))
    encoder = dict(shared, feat=torch.cat([feat.flatten(2).transpose(1, 2) for feat in mlvl_feats], 1),
                   feat_mask=None, feat_pos=torch.cat(places, 1))
    return encoder, dict(shared, memory_mask=None)


def _centres(height: int, width: int, device: torch.device) -> Tensor:
    """(height * width, 2) centres of cells as (x, y), 0 to 1."""
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    grid = torch.stack([columns[None].expand(height, -1), rows[:, None].expand(-1, width)], -1)
    return grid.flatten(0, 1)


def _references(spatial_shapes: Sizes, valid_ratios: Tensor, device: torch.device) -> Tensor:
    """(B, N, L, 2), see mmdet."""
    centres = torch.cat([_centres(*size, device) for size in spatial_shapes])
    return centres[None, :, None].expand(valid_ratios.shape[0], -1, valid_ratios.shape[1], -1)


def _proposals(self: Any, memory: Tensor, memory_mask: Tensor | None, spatial_shapes: Sizes) -> tuple[Tensor, Tensor]:
    """See mmdet; nothing is padded."""
    levels = [torch.cat([centres, torch.full_like(centres, 0.05 * 2.0**level)], -1)
              for level, centres in enumerate(_centres(*size, memory.device) for size in spatial_shapes)]
    boxes = torch.cat(levels)[None]
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    logits = torch.log(boxes / (1 - boxes)).masked_fill(~valid, float('inf'))
    output = self.memory_trans_norm(self.memory_trans_fc(memory.masked_fill(~valid, 0.0)))
    return output, logits.expand(memory.shape[0], -1, -1)
