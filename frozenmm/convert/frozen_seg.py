"""Official FrozenSeg checkpoints (detectron2 layout) -> `FrozenSeg`.

Source: chenxi52/FrozenSeg@647cf68; the recorded cases of the official code pass through these rules.
"""
from __future__ import annotations

from torch import Tensor

from frozenmm.convert.fc_clip import RULES as FC_CLIP_RULES
from frozenmm.convert.fc_clip import TowerWeights, compare_tower, encoder_rules, with_record
from frozenmm.convert.identify import require_layout
from frozenmm.convert.rename import ConversionReport, Rename, rename_keys
from frozenmm.foundation.vocabulary import VocabularySource

LAYOUT = 'FrozenSeg'
_PIXEL, _PREDICTOR = r'sem_seg_head\.pixel_decoder\.', r'sem_seg_head\.predictor\.'
_BRANCH = 'mask_generator.sam_branch.'
_MAX_LAYERS = 60


def _injector_rules() -> tuple[Rename, ...]:
    """Every third official entry is an injector, the others are empty."""
    rules = []
    for number in range(_MAX_LAYERS // 3):
        start = rf'{_PREDICTOR}transformer_cross_attention_layers_sam\.{3 * number}\.'
        to = f'mask_generator.decoder.feature_injectors.{number}.'
        rules += [Rename(rf'{start}multihead_attn\.(.+)', rf'{to}attn.\1'),
                  Rename(rf'{start}norm\.(.+)', rf'{to}norm.\1')]
    return tuple(rules)


RULES = (
    Rename(rf'{_PIXEL}fpn3\.0\.(.+)', rf'{_BRANCH}conv.conv.\1'),
    Rename(rf'{_PIXEL}fpn3\.1\.(.+)', rf'{_BRANCH}conv.gn.\1'),
    *encoder_rules(rf'{_PIXEL}sam_transformer\.', _BRANCH),
    *_injector_rules(),
    # there where the pixel decoder is not as wide as the queries; one SAM map is all that the decoder takes
    Rename(rf'{_PREDICTOR}input_proj_sam\.(?:0\.)?(weight|bias)', r'mask_generator.decoder.sam_input_proj.\1'),
    Rename(rf'{_PREDICTOR}input_proj_sam\.[12]\.(weight|bias)', None, 'a projection of SAM maps that nothing reads'),
    Rename(r'sam\.(image_encoder|prompt_encoder|mask_decoder)\..+', None, 'the frozen SAM model has its own file'),
    Rename(r'sam\.pixel_(mean|std)', None, 'normalisation is a constant of the model'),
    *FC_CLIP_RULES,
)


def convert_frozen_seg(state: dict[str, Tensor], *, train_vocabulary: VocabularySource = 'coco_panoptic_133',
                       compat: bool = True,
                       tower: TowerWeights | None = None) -> tuple[dict[str, Tensor], ConversionReport]:
    """An official state dict as one of `FrozenSeg`, whose SAM branch must have `compat=True`.

    Args, returns and errors as `convert_fc_clip`.
    """
    require_layout(state, (LAYOUT,), 'frozen_seg')
    result, report = rename_keys(state, RULES)
    report.require_all_matched(LAYOUT)
    report.notes.append(compare_tower(state, tower))
    return with_record(result, train_vocabulary, compat), report
