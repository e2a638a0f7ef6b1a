"""Official FC-CLIP checkpoints (detectron2 layout) -> `FCCLIP`.

Source: bytedance/fc-clip@2b0bbe2; the recorded cases of the official code pass through these rules.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from frozenmm.convert.identify import require_layout
from frozenmm.convert.rename import ConversionReport, Rename, rename_keys
from frozenmm.errors import UserError
from frozenmm.foundation.image_towers.open_clip import open_clip_model, published_file
from frozenmm.foundation.state_file import read_state
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.foundation.weights import weights_folder
from frozenmm.registry import installed

LAYOUT = 'FC-CLIP'
CLIP_PREFIX = 'backbone.clip_model.'
_PIXEL, _PREDICTOR = r'sem_seg_head\.pixel_decoder\.', r'sem_seg_head\.predictor\.'
_OUR_PIXEL, _OUR_DECODER = 'mask_generator.pixel_decoder.', 'mask_generator.decoder.'


def encoder_rules(official: str, ours: str) -> tuple[Rename, ...]:
    """Rules of a deformable encoder and its level embedding, from and to these prefixes."""
    layer = rf'{official}encoder\.layers\.(\d+)\.'
    to = rf'{ours}encoder.layers.\1.'
    return (
        Rename(rf'{official}level_embed', f'{ours}level_encoding.weight'),
        Rename(rf'{layer}self_attn\.(.+)', rf'{to}self_attn.\2'),
        Rename(rf'{layer}norm1\.(.+)', rf'{to}norms.0.\2'),
        Rename(rf'{layer}norm2\.(.+)', rf'{to}norms.1.\2'),
        Rename(rf'{layer}linear1\.(.+)', rf'{to}ffn.layers.0.0.\2'),
        Rename(rf'{layer}linear2\.(.+)', rf'{to}ffn.layers.1.\2'),
    )


PIXEL_DECODER = (
    Rename(rf'{_PIXEL}input_proj\.(\d+)\.0\.(.+)', rf'{_OUR_PIXEL}input_convs.\1.conv.\2'),
    Rename(rf'{_PIXEL}input_proj\.(\d+)\.1\.(.+)', rf'{_OUR_PIXEL}input_convs.\1.gn.\2'),
    *encoder_rules(rf'{_PIXEL}transformer\.', _OUR_PIXEL),
    Rename(rf'{_PIXEL}adapter_1\.norm\.(.+)', rf'{_OUR_PIXEL}lateral_convs.0.gn.\1'),
    Rename(rf'{_PIXEL}adapter_1\.weight', f'{_OUR_PIXEL}lateral_convs.0.conv.weight'),
    Rename(rf'{_PIXEL}layer_1\.norm\.(.+)', rf'{_OUR_PIXEL}output_convs.0.gn.\1'),
    Rename(rf'{_PIXEL}layer_1\.weight', f'{_OUR_PIXEL}output_convs.0.conv.weight'),
    Rename(rf'{_PIXEL}mask_features\.(.+)', rf'{_OUR_PIXEL}mask_feature.\1'),
)


def _layer_rules() -> tuple[Rename, ...]:
    """Rules of the decoder layers: three official lists become one list of layers."""
    rules = []
    for place, (official, attention, ours) in enumerate((
            ('cross_attention', 'multihead_attn', 'cross_attn'), ('self_attention', 'self_attn', 'self_attn'))):
        start = rf'{_PREDICTOR}transformer_{official}_layers\.(\d+)\.'
        to = rf'{_OUR_DECODER}transformer_decoder.layers.\1.'
        rules += [Rename(rf'{start}{attention}\.(.+)', rf'{to}{ours}.attn.\2'),
                  Rename(rf'{start}norm\.(.+)', rf'{to}norms.{place}.\2')]
    start, to = rf'{_PREDICTOR}transformer_ffn_layers\.(\d+)\.', rf'{_OUR_DECODER}transformer_decoder.layers.\1.'
    return (*rules, Rename(rf'{start}linear1\.(.+)', rf'{to}ffn.layers.0.0.\2'),
            Rename(rf'{start}linear2\.(.+)', rf'{to}ffn.layers.1.\2'),
            Rename(rf'{start}norm\.(.+)', rf'{to}norms.2.\2'))


def _mlp_rules(official: str, ours: str) -> tuple[Rename, ...]:
    """Rules of a three-layer MLP, which in our models has activations in between."""
    return tuple(Rename(rf'{official}\.layers\.{index}\.(.+)', rf'{ours}.{2 * index}.\1') for index in range(3))


DECODER = (
    *_layer_rules(),
    Rename(rf'{_PREDICTOR}decoder_norm\.(.+)', rf'{_OUR_DECODER}transformer_decoder.post_norm.\1'),
    Rename(rf'{_PREDICTOR}(query_feat|query_embed|level_embed)\.(.+)', rf'{_OUR_DECODER}\1.\2'),
    Rename(rf'{_PREDICTOR}input_proj\.(\d+)\.(.+)', rf'{_OUR_DECODER}input_projs.\1.\2'),
    Rename(rf'{_PREDICTOR}_mask_pooling_proj\.(.+)', rf'{_OUR_DECODER}pool_proj.\1'),
    *_mlp_rules(rf'{_PREDICTOR}mask_embed', f'{_OUR_DECODER}mask_embed'),
    *_mlp_rules(rf'{_PREDICTOR}class_embed', 'classifier.class_embed'),
    Rename(rf'{_PREDICTOR}logit_scale', 'classifier.logit_scale'),
    Rename(r'void_embedding\.(.+)', r'classifier.void_embedding.\1'),
)
DROPPED = (
    Rename(r'backbone\.clip_model\..+', None, 'the frozen CLIP model has its own file'),
    Rename(r'criterion\.empty_weight', None, 'a constant of the loss'),
    Rename(r'(sem_seg_head\.)?pixel_(mean|std)', None, 'normalisation is in the data preprocessor'),
)
RULES = (*PIXEL_DECODER, *DECODER, *DROPPED)


TowerWeights = nn.Module | Mapping[str, Tensor] | str | Path
"""The CLIP model that a converted one will use: a tower's network, its tensors by name, or their file."""


def convert_fc_clip(state: dict[str, Tensor], *, train_vocabulary: VocabularySource = 'coco_panoptic_133',
                    compat: bool = True,
                    tower: TowerWeights | None = None) -> tuple[dict[str, Tensor], ConversionReport]:
    """An official state dict as one of `FCCLIP`.

    The result carries the training vocabulary and the official numerics of the ensemble; the classifier adopts both.

    Args:
        state: tensors by official key, see `weights_of`.
        train_vocabulary: the classes that the official model was trained on; a packaged name or a vocabulary.
        compat: let the model compute the ensemble as the official code does, NaN included.
        tower: the CLIP model that the result will be used with, to be compared with the frozen one inside; by default
            the published ConvNeXt-L, if it is on this machine and inside. A note in the report says what was compared.

    Returns:
        Tensors by our key, and the report.

    Raises:
        UserError: another layout, unknown keys, or a tower with other weights.
    """
    require_layout(state, (LAYOUT,), 'fc_clip')
    result, report = rename_keys(state, RULES)
    report.require_all_matched(LAYOUT)
    report.notes.append(compare_tower(state, tower))
    return with_record(result, train_vocabulary, compat), report


def with_record(state: dict[str, Tensor], train_vocabulary: VocabularySource, compat: bool) -> dict[str, Tensor]:
    """The state with the record of words and numerics that the classifier reads."""
    from frozenmm.segmentation.fc_clip.classifier import RECORD, vocabulary_record
    return {**state, f'classifier.{RECORD}': vocabulary_record(Vocabulary.read(train_vocabulary), compat=compat)}


def compare_tower(state: dict[str, Tensor], tower: TowerWeights | None) -> str:
    """Compare the frozen CLIP model inside an official checkpoint with the one to be used, if it is at hand.

    Returns:
        A sentence that says what was compared.

    Raises:
        UserError: see `check_tower`.
    """
    if tower is None:
        tower = _published_tower(state)
        if tower is None:
            return ('the CLIP weights inside were not compared with those of the tower to be used, which are not on '
                    'this machine; give their file as `tower` (--tower FILE)')
    name = f'those in {tower}' if isinstance(tower, str | Path) else "the tower's"
    if isinstance(tower, str | Path):
        tower = read_state(tower)
    count = check_tower(state, tower)
    return f'the CLIP weights inside are {name}: {count} tensors agree'


def _published_tower(state: dict[str, Tensor]) -> Path | None:
    """The file of the CLIP ConvNeXt-L that official models are built on, where it is in the cache folder."""
    stem = state.get(f'{CLIP_PREFIX}visual.trunk.stem.0.weight')
    if stem is None or stem.shape != (192, 3, 4, 4) or not installed('open_clip'):
        return None
    file = published_file(*open_clip_model('convnext_large_d_320', None))
    path = None if file is None else weights_folder() / file.file_name
    return path if path is not None and path.is_file() else None


def check_tower(state: dict[str, Tensor], tower: nn.Module | Mapping[str, Tensor]) -> int:
    """Compare the frozen CLIP weights inside an official checkpoint with those of the tower that will be used.

    Args:
        state: tensors by official key.
        tower: the tower's network or tensors, with open_clip's or CLIP's names (`visual.` may be left out).

    Returns:
        How many tensors agree.

    Raises:
        UserError: no common tensor, or one that differs by more than half precision explains.
    """
    official = {key.removeprefix(CLIP_PREFIX): value for key, value in state.items() if key.startswith(CLIP_PREFIX)}
    weights = tower.state_dict() if isinstance(tower, nn.Module) else tower
    agreeing = 0
    for key, value in weights.items():
        other = official.get(key, official.get(f'visual.{key}'))
        if other is None:
            continue
        if other.shape != value.shape or not torch.allclose(other.float(), value.float().cpu(), rtol=1e-3, atol=1e-5):
            raise UserError(f'the checkpoint was trained with other CLIP weights than the tower\'s: {key} differs; '
                            'build the tower with the weights that its model card names')
        agreeing += 1
    if not agreeing:
        raise UserError(f'the checkpoint holds {len(official)} CLIP tensors, but none of the tower\'s; it is another '
                        'architecture')
    return agreeing
