"""Official PMT checkpoints (decoder only) -> `PlainMaskSegmentor`.

Source: tue-mps/pmt@54d73c9 (MIT). The tower comes from its own file (DINOv3: own licence). Compiled, fused and
Lightning variants are the same network. Checkpoints of EoMT are another one: it trains the encoder's own blocks.
"""
from __future__ import annotations

import torch
from torch import Tensor

from frozenmm.convert.identify import require_layout
from frozenmm.convert.rename import ConversionReport, Rename, rename_keys
from frozenmm.errors import UserError
from frozenmm.foundation.state_records import as_record

LAYOUT = 'PMT'
_THEIRS, _OURS = r'network\.decoder\.', 'mask_generator.'
_FUSED = '.attention.qkv_proj.'
_COMPILED = '_orig_mod.'
RULES = (
    Rename(rf'{_THEIRS}q\.weight', f'{_OURS}queries.weight'),
    Rename(rf'{_THEIRS}lateral_projections\.(\d+)\.(.+)', rf'{_OURS}fusion.laterals.\1.\2'),
    Rename(rf'{_THEIRS}scalers\.(\d+)', rf'{_OURS}fusion.scales.\1'),
    Rename(rf'{_THEIRS}blocks\.(.+)', rf'{_OURS}blocks.\1'),
    Rename(rf'{_THEIRS}decoder_norm\.(.+)', rf'{_OURS}norm.\1'),
    Rename(rf'{_THEIRS}mask_head\.(.+)', rf'{_OURS}prediction.mask_embed.\1'),
    Rename(rf'{_THEIRS}upscale\.(\d+)\.conv1\.(.+)', rf'{_OURS}prediction.upscale.\1.enlarge.\2'),
    Rename(rf'{_THEIRS}upscale\.(\d+)\.conv2\.(.+)', rf'{_OURS}prediction.upscale.\1.smooth.\2'),
    Rename(rf'{_THEIRS}upscale\.(\d+)\.norm\.(.+)', rf'{_OURS}prediction.upscale.\1.norm.\2'),
    Rename(rf'{_THEIRS}class_head\.(.+)', r'classifier.class_head.\1'),
    Rename(rf'{_THEIRS}attn_mask_probs', f'{_OURS}attn_mask_probs'),
    Rename(r'network\.bn\.(\d+)\.(.+)', rf'{_OURS}fusion.norms.\1.\2'),
    Rename(r'network\.encoder\..+', None, 'the frozen tower has its own file'),
    Rename(rf'{_THEIRS}pe\..+', None, 'a position encoding of older code'),
    Rename(r'network\.bn_(prefix|patch)\..+', None, 'separate statistics of older code'),
    Rename(r'network\.rope\..+', None, 'positions are computed'),
    Rename(r'network\._attn_mask_probs_fallback', None, 'a copy of the probabilities by older code'),
    Rename(r'criterion\.empty_weight', None, 'a constant of the loss'),
)


def convert_pmt(state: dict[str, Tensor], *, compat: bool = True) -> tuple[dict[str, Tensor], ConversionReport]:
    """An official state dict as one of `PlainMaskSegmentor`.

    Args:
        state: tensors by official key, see `weights_of`.
        compat: let the model count padding in statistics and attention, as the official code does.

    Returns:
        Tensors by our key, and the report: every official key is in it.

    Raises:
        UserError: another layout, unknown keys, or a fused projection with a bias of the keys.
    """
    from frozenmm.segmentation.plain_mask.decoder import RECORD
    origins: dict[str, str] = {}
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        for name, part in _unfused(key.replace(_COMPILED, ''), value).items():
            plain[name], origins[name] = part, key
    require_layout(plain, (LAYOUT,), 'pmt')
    result, report = rename_keys(plain, RULES)
    report.require_all_matched(LAYOUT)
    renamed: dict[str, list[str]] = {}
    for name, ours in report.renamed.items():
        renamed.setdefault(origins[name], []).append(ours)
    report.renamed = {key: ', '.join(names) for key, names in renamed.items()}
    report.dropped = {origins[name]: why for name, why in report.dropped.items()}
    return {**result, f'{_OURS}{RECORD}': as_record(dict(compat=compat))}, report


def _unfused(key: str, value: Tensor) -> dict[str, Tensor]:
    """The parts of a fused projection to query, key and value by their own names; anything else as it is."""
    if _FUSED not in key:
        return {key: value}
    parts = {letter: (key.replace('qkv_proj', f'{letter}_proj'), part.clone())
             for letter, part in zip('qkv', value.chunk(3))}
    if key.endswith('.bias'):
        _, bias = parts.pop('k')
        if torch.any(bias != 0):
            raise UserError(f'{key} has a bias of the keys that is not 0; PMT\'s keys have none, so this is the file '
                            'of another network')
    return dict(parts.values())
