"""Official Frozen-DETR (DINO-coco) and official DINO checkpoints -> `EnhancedDINO`.

Source: iSEE-Laboratory/Frozen-DETR@e0c0412, directory DINO-coco; the recorded cases of the official code pass through
these rules.
"""
from __future__ import annotations

import re

from torch import Tensor

from frozenmm.convert.identify import require_layout
from frozenmm.convert.rename import ConversionReport, Rename, rename_keys
from frozenmm.detection.frozen_detr import compat_record
from frozenmm.errors import UserError
from frozenmm.foundation.state_records import as_record

LAYOUTS = ('Frozen-DETR, DINO-coco', 'official DINO')
COCO_IDS = (*range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83),
            *range(84, 91))
"""The 80 category ids of COCO in order; official class layers have a row for every id below 91."""

FOUNDATION = (
    Rename(r'(foundation_model|dinov2)\..*', None, 'foundation weights come from their own file'),
)
TRANSFORMER = (
    Rename(r'transformer\.level_embed', 'level_embed'),
    Rename(r'transformer\.tgt_embed\.weight', 'query_embedding.weight'),
    Rename(r'transformer\.enc_output\.(.+)', r'memory_trans_fc.\1'),
    Rename(r'transformer\.enc_output_norm\.(.+)', r'memory_trans_norm.\1'),
    Rename(r'transformer\.encoder\.layers\.(\d+)\.self_attn\.(.+)', r'encoder.layers.\1.self_attn.\2'),
    Rename(r'transformer\.encoder\.layers\.(\d+)\.norm1\.(.+)', r'encoder.layers.\1.norms.0.\2'),
    Rename(r'transformer\.encoder\.layers\.(\d+)\.norm2\.(.+)', r'encoder.layers.\1.norms.1.\2'),
    Rename(r'transformer\.decoder\.layers\.(\d+)\.self_attn\.(.+)', r'decoder.layers.\1.self_attn.attn.\2'),
    Rename(r'transformer\.decoder\.layers\.(\d+)\.cross_attn\.(.+)', r'decoder.layers.\1.cross_attn.\2'),
    # the norm behind the self-attention is called norm2, the one behind the cross-attention norm1
    Rename(r'transformer\.decoder\.layers\.(\d+)\.norm2\.(.+)', r'decoder.layers.\1.norms.0.\2'),
    Rename(r'transformer\.decoder\.layers\.(\d+)\.norm1\.(.+)', r'decoder.layers.\1.norms.1.\2'),
    Rename(r'transformer\.decoder\.layers\.(\d+)\.norm3\.(.+)', r'decoder.layers.\1.norms.2.\2'),
    Rename(r'transformer\.(encoder|decoder)\.layers\.(\d+)\.linear1\.(.+)', r'\1.layers.\2.ffn.layers.0.0.\3'),
    Rename(r'transformer\.(encoder|decoder)\.layers\.(\d+)\.linear2\.(.+)', r'\1.layers.\2.ffn.layers.1.\3'),
    Rename(r'transformer\.decoder\.(norm|ref_point_head)\.(.+)', r'decoder.\1.\2'),
    Rename(r'transformer\.decoder\.image_query_proj\.(\d+)\.(.+)', r'image_queries.projections.\1.\2'),
    Rename(r'transformer\.decoder\.image_query_norm\.(\d+)\.(.+)', r'image_queries.norms.\1.\2'),
    Rename(r'label_enc\.weight', 'dn_query_generator.label_embedding.weight'),
    Rename(r'patch_token_proj\.0\.(.+)', r'patch_levels.0.projection.\1'),
    Rename(r'patch_token_proj\.1\.(.+)', r'patch_levels.0.norm.\1'),
    Rename(r'patch_token_proj2\.0\.(.+)', r'patch_levels.1.projection.\1'),
    Rename(r'patch_token_proj2\.1\.(.+)', r'patch_levels.1.norm.\1'),
    Rename(r'backbone\.0\.body\.(.+)', r'backbone.\1'),
)


def key_map(num_layers: int, num_lateral: int) -> tuple[Rename, ...]:
    """The rules for a model with `num_layers` decoder layers and `num_lateral` levels made by 1x1 convolutions."""
    rules = [*FOUNDATION, *TRANSFORMER]
    for k in range(3):  # the box branch is an MLP of three layers, in mmdet with activations in between
        rules += [Rename(rf'(?:transformer\.decoder\.)?bbox_embed\.(\d+)\.layers\.{k}\.(.+)',
                         rf'bbox_head.reg_branches.\1.{2 * k}.\2'),
                  Rename(rf'transformer\.enc_out_bbox_embed\.layers\.{k}\.(.+)',
                         rf'bbox_head.reg_branches.{num_layers}.{2 * k}.\1')]
    rules += [Rename(r'(?:transformer\.decoder\.)?class_embed\.(\d+)\.(.+)', r'bbox_head.cls_branches.\1.\2'),
              Rename(r'transformer\.enc_out_class_embed\.(.+)', rf'bbox_head.cls_branches.{num_layers}.\1')]
    for level in range(num_lateral + 8):
        place = f'convs.{level}' if level < num_lateral else f'extra_convs.{level - num_lateral}'
        rules += [Rename(rf'input_proj\.{level}\.0\.(.+)', rf'neck.{place}.conv.\1'),
                  Rename(rf'input_proj\.{level}\.1\.(.+)', rf'neck.{place}.gn.\1')]
    return tuple(rules)


def key_map_of(state: dict[str, Tensor]) -> tuple[Rename, ...]:
    """The rules for a state dict; the numbers of layers and levels are read from it."""
    layers = [int(match[1]) for key in state if (match := re.match(r'transformer\.decoder\.layers\.(\d+)\.', key))]
    lateral = sum(bool(re.fullmatch(r'input_proj\.\d+\.0\.weight', key)) and value.shape[-1] == 1
                  for key, value in state.items())
    return key_map(max(layers, default=-1) + 1, lateral)


def convert_frozen_detr(state: dict[str, Tensor], *, classes: int = 80) -> tuple[dict[str, Tensor], ConversionReport]:
    """An official state dict as one of `EnhancedDINO`.

    The model needs `bias=True` in its ChannelMapper. The result carries the official numerics, which the head of the
    model sets when it loads them. Foundation weights (`foundation_model.*`, `dinov2.*`) are left out.

    Args:
        state: tensors by official key, see `weights_of`.
        classes: 80 keeps the rows of COCO's 80 categories in order, which is what mmdet's data sets and our configs
            number; 91 keeps the official rows (row = COCO id), for models with `num_classes=91`.

    Returns:
        Tensors by our key, and the report.

    Raises:
        UserError: another layout, unknown keys, aliases with different values, or classes that do not fit.
    """
    if classes not in (80, 91):
        raise UserError(f'classes must be 80 (COCO categories in order) or 91 (official rows), got {classes}')
    require_layout(state, LAYOUTS, 'frozen_detr')
    result, report = rename_keys(state, key_map_of(state))
    report.require_all_matched(LAYOUTS[0])
    result = finish(result, COCO_IDS if classes == 80 else None)
    return result, report


def finish(state: dict[str, Tensor], class_rows: tuple[int, ...] | None = None) -> dict[str, Tensor]:
    """Bring renamed weights to our shapes: no row for the unknown label, the wanted class rows, official numerics.

    Args:
        state: renamed weights; a partial state is fine.
        class_rows: rows of the class layers to keep, all by default.
    """
    state = dict(state)
    label = 'dn_query_generator.label_embedding.weight'
    if label in state:
        # the official table ends with a row for an unknown label, which nothing reads
        state[label] = state[label][:-1]
    if class_rows is not None:
        for key in [key for key in state if key == label or key.startswith('bbox_head.cls_branches.')]:
            if len(state[key]) <= max(class_rows):
                raise UserError(f'{key} has {len(state[key])} rows, so it is not made for the 91 ids of COCO; '
                                 'convert with classes=91 to keep all rows')
            state[key] = state[key][list(class_rows)]
    state[compat_record.RECORD] = as_record(compat_record.OFFICIAL)
    return state
