"""Checkpoints of Frozen-DETR's mmdet-2.x fork -> `EnhancedCoDINO`, and its DINO (LVIS) -> `EnhancedDINO`.

Source: iSEE-Laboratory/Frozen-DETR@e0c0412, directory Co-DINO_AdaMixer_DINO-lvis, and Co-DETR, from which it descends;
released with ResNet-50 and Swin-B.
"""
from __future__ import annotations

import torch
from torch import Tensor

from frozenmm.convert.identify import require_layout
from frozenmm.convert.rename import ConversionReport, Rename, rename_keys
from frozenmm.detection.frozen_detr import compat_record
from frozenmm.foundation.state_records import as_record

LAYOUT = 'Frozen-DETR, mmdet-2.x fork'
T = r'query_head\.transformer\.'
RULES = (
    Rename(r'foundation_model\..*', None, 'foundation weights come from their own file'),
    Rename(T + r'level_embeds', 'level_embed'),
    Rename(T + r'query_embed\.weight', 'query_embedding.weight'),
    Rename(T + r'enc_output\.(.+)', r'memory_trans_fc.\1'),
    Rename(T + r'enc_output_norm\.(.+)', r'memory_trans_norm.\1'),
    Rename(T + r'image_query_proj\.(.+)', r'patch_levels.0.projection.\1'),
    Rename(T + r'image_query_norm\.(.+)', r'patch_levels.0.norm.\1'),
    Rename(T + r'decoder\.image_query_proj\.(\d+)\.(.+)', r'image_queries.projections.\1.\2'),
    Rename(T + r'decoder\.image_query_norm\.(\d+)\.(.+)', r'image_queries.norms.\1.\2'),
    Rename(T + r'encoder\.layers\.(\d+)\.attentions\.0\.(.+)', r'encoder.layers.\1.self_attn.\2'),
    Rename(T + r'decoder\.layers\.(\d+)\.attentions\.0\.(.+)', r'decoder.layers.\1.self_attn.\2'),
    Rename(T + r'decoder\.layers\.(\d+)\.attentions\.1\.(.+)', r'decoder.layers.\1.cross_attn.\2'),
    Rename(T + r'(encoder|decoder)\.layers\.(\d+)\.ffns\.0\.(.+)', r'\1.layers.\2.ffn.\3'),
    Rename(T + r'(encoder|decoder)\.layers\.(\d+)\.norms\.(.+)', r'\1.layers.\2.norms.\3'),
    Rename(T + r'decoder\.norm\.(.+)', r'decoder.norm.\1'),
    Rename(T + r'decoder\.ref_point_head\.0\.(.+)', r'decoder.ref_point_head.layers.0.\1'),
    Rename(T + r'decoder\.ref_point_head\.2\.(.+)', r'decoder.ref_point_head.layers.1.\1'),
    Rename(r'query_head\.(cls|reg)_branches\.(.+)', r'bbox_head.\1_branches.\2'),
    Rename(r'query_head\.label_embedding\.(.+)', r'dn_query_generator.label_embedding.\1'),
    Rename(r'neck\.(.+)', r'neck.\1'),
)
COLLABORATORS = (
    Rename(T + r'aux_pos_trans\.(\d+)\.(.+)', r'collaborators.projections.\1.0.\2'),
    Rename(T + r'aux_pos_trans_norm\.(\d+)\.(.+)', r'collaborators.projections.\1.1.\2'),
    Rename(r'query_head\.downsample\.(.+)', r'collaborators.downsample.\1'),
    Rename(r'rpn_head\.(.+)', r'collaborators.rpn_head.\1'),
    Rename(r'roi_head\.0\.(.+)', r'collaborators.roi_head.\1'),
    Rename(r'bbox_head\.0\.(.+)', r'collaborators.dense_head.\1'),
)
NO_COLLABORATORS = (
    Rename(T + r'aux_pos_trans(_norm)?\..+', None, 'made for collaborators, which this DINO has not'),
)
SWIN = (
    Rename(r'backbone\.patch_embed\.proj\.(.+)', r'backbone.patch_embed.projection.\1'),
    Rename(r'backbone\.layers\.(\d+\.blocks\.\d+)\.attn\.(.+)', r'backbone.stages.\1.attn.w_msa.\2'),
    Rename(r'backbone\.layers\.(\d+\.blocks\.\d+)\.mlp\.fc1\.(.+)', r'backbone.stages.\1.ffn.layers.0.0.\2'),
    Rename(r'backbone\.layers\.(\d+\.blocks\.\d+)\.mlp\.fc2\.(.+)', r'backbone.stages.\1.ffn.layers.1.\2'),
    Rename(r'backbone\.layers\.(.+)', r'backbone.stages.\1'),
)
BACKBONE = (Rename(r'backbone\.(.+)', r'backbone.\1'),)


def convert_co_dino(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], ConversionReport]:
    """A state dict of the fork as one of `EnhancedCoDINO`, or of `EnhancedDINO` where it has no collaborators.

    The model needs `patch_norm='LN'`. The result carries the numerics of the fork: the clamp of reference boxes and the
    border of the foundation image. Foundation weights are left out.

    Args:
        state: tensors by the fork's key, see `weights_of`.

    Raises:
        UserError: another layout, or unknown keys.
    """
    require_layout(state, (LAYOUT,), 'co_dino')
    heads = COLLABORATORS if any(key.startswith('rpn_head.') for key in state) else NO_COLLABORATORS
    swin = any(key.startswith('backbone.layers.') for key in state)
    result, report = rename_keys(state, (*RULES, *heads, *(SWIN if swin else ()), *BACKBONE))
    report.require_all_matched(LAYOUT)
    if swin:
        result = {key: _unfolded(value) if '.downsample.' in key and key.startswith('backbone.') else value
                  for key, value in result.items()}
        report.notes.append('channels of patch merging follow the order of mmdet\'s SwinTransformer')
    result[compat_record.RECORD] = as_record(compat_record.FORK)
    return result, report


def _unfolded(weight: Tensor) -> Tensor:
    """Patch merging joins four pixels by column, then row, and channels last; mmdet channels first, then row, column.

    Args:
        weight: (..., 4 C) of the reduction or its norm.
    """
    pixels = weight.unflatten(-1, (4, -1))[..., torch.tensor([0, 2, 1, 3]), :]
    return pixels.transpose(-1, -2).flatten(-2)
