"""Official Fusioner checkpoints -> the fusion and decoder of `FusionerHead`.

The layout is known from the specification of shapes and key names; no official checkpoint has been published.
"""
from __future__ import annotations

from torch import Tensor

from frozenmm.convert.rename import ConversionReport, Rename, rename_keys

TOWERS = (Rename(r'(text_model|img_model)\..*', None, 'tower weights come from their own file'), )
FUSION = (
    Rename(r'cls_emb', 'class_rows'),
    Rename(r'proj_patch', 'patch_projection'),
    Rename(r'proj_classes', 'class_projection'),
    Rename(r'visual_proj\.(\d)\.(.+)', r'visual_projection.\1.\2'),
    Rename(r'text_proj\.(\d)\.(.+)', r'text_projection.\1.\2'),
    Rename(r'norm\.(.+)', r'norm.\1'),
    Rename(r'blocks\.(\d+)\.norm([12])\.(.+)', r'blocks.\1.norm\2.\3'),
    Rename(r'blocks\.(\d+)\.attn\.qkv\.(.+)', r'blocks.\1.attention.qkv.\2'),
    Rename(r'blocks\.(\d+)\.attn\.proj\.(.+)', r'blocks.\1.attention.out.\2'),
    Rename(r'blocks\.(\d+)\.mlp\.fc1\.(.+)', r'blocks.\1.mlp.0.\2'),
    Rename(r'blocks\.(\d+)\.mlp\.fc2\.(.+)', r'blocks.\1.mlp.3.\2'),
)
DECODER = (
    Rename(r'conv_([0-3])\.(.+)', r'convs.\1.\2'),
    Rename(r'conv_4\.(.+)', r'projection.\1'),
)


def _below(prefix: str, rules: tuple[Rename, ...], to: str = '') -> tuple[Rename, ...]:
    return tuple(Rename(rf'{prefix}\.{rule.pattern}', to + str(rule.to)) for rule in rules)


def key_map(prefix: str = '') -> tuple[Rename, ...]:
    """The rules for a whole official file; `prefix` stands before our `fusion.` and `decoder.`."""
    return (*TOWERS, *_below('fusion', FUSION, f'{prefix}fusion.'), *_below('decoder', DECODER, f'{prefix}decoder.'))


def convert_fusioner(state: dict[str, Tensor],
                     prefix: str = 'decode_head.network.') -> tuple[dict[str, Tensor], ConversionReport]:
    """The trained part of an official checkpoint under our names; towers are dropped.

    Args:
        state: the official state dict.
        prefix: place of the head in the model, `'decode_head.network.'` in an mmseg segmentor.

    Raises:
        UserError: keys that do not belong to Fusioner.
    """
    result, report = rename_keys(state, key_map(prefix))
    report.require_all_matched('Fusioner')
    return result, report
