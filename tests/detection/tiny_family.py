"""Tiny configs of mmdet's DETR family; mmdet's position embeddings allow no other width than 256."""
from __future__ import annotations

from pathlib import Path

import tiny_dino as tiny
import transformers
from mmengine.config import ConfigDict

DIM = 256
HEADS = dict(DeformableDETR='DeformableDETRHead', DDQDETR='DDQDETRHead', GroundingDINO='GroundingDINOHead',
             DABDETR='DABDETRHead', ConditionalDETR='ConditionalDETRHead')
DETECTORS = {
    'deformable': ('DeformableDETR', dict(as_two_stage=False, with_box_refine=False)),
    'deformable-refine': ('DeformableDETR', dict(as_two_stage=False, with_box_refine=True)),
    'deformable-two-stage': ('DeformableDETR', dict(as_two_stage=True, with_box_refine=True)),
    'deformable-two-stage-plain': ('DeformableDETR', dict(as_two_stage=True, with_box_refine=False)),
    'dab': ('DABDETR', {}),
    'dab-patterns': ('DABDETR', dict(num_patterns=2)),
    'conditional': ('ConditionalDETR', {}),
    'ddq': ('DDQDETR', dict(dqs_cfg=dict(type='nms', iou_threshold=0.8))),
    'grounding': ('GroundingDINO', {}),
}
SINGLE_SCALE = ('dab', 'dab-patterns', 'conditional')


def config(name: str, *enhancers: dict, plain: bool = False, bert: str = '', **changes: object) -> dict:
    """Config of a detector, as mmdet's with `plain`, else as ours; `bert` is a folder with its text model."""
    kind, own = DETECTORS[name]
    built = tiny.config(DIM, layers=2)
    built['bbox_head'].update(type=f'mmdet.{HEADS[kind]}')
    built.update(type=f'mmdet.{kind}', **own)
    if kind in ('DeformableDETR', 'DABDETR', 'ConditionalDETR'):
        del built['dn_cfg']
    if kind in ('DABDETR', 'ConditionalDETR'):
        _single_scale(built)
    if kind == 'GroundingDINO':
        _grounding(built, bert)
    if not plain:
        built.update(type=f'frozenmm.Enhanced{kind}', enhancers=list(enhancers), patch_groups=8)
    return ConfigDict(built | changes)  # mmdet's Grounding DINO reads attributes of it


def _single_scale(built: dict) -> None:
    for key in 'as_two_stage', 'with_box_refine', 'num_feature_levels':
        del built[key]
    built['backbone']['out_indices'] = (3, )
    built['neck'].update(in_channels=[32], num_outs=1)
    built['bbox_head'].pop('sync_cls_avg_factor')
    attention = dict(embed_dims=DIM, num_heads=4)
    built['encoder']['layer_cfg'].update(self_attn_cfg=dict(attention, dropout=0.0))
    del built['decoder']['post_norm_cfg']
    built['decoder']['layer_cfg'].update(self_attn_cfg=dict(attention, cross_attn=False),
                                         cross_attn_cfg=dict(attention, cross_attn=True))


def _grounding(built: dict, bert: str) -> None:
    attention = dict(embed_dims=DIM, num_heads=4, dropout=0.0)
    built['language_model'] = dict(type='mmdet.BertModel', name=bert, pad_to_max=False,
                                   use_sub_sentence_represent=True, special_tokens_list=['[CLS]', '[SEP]', '.', '?'],
                                   add_pooling_layer=False)
    built['encoder'].update(
        text_layer_cfg=dict(self_attn_cfg=dict(attention),
                            ffn_cfg=dict(embed_dims=DIM, feedforward_channels=32, ffn_drop=0.0)),
        fusion_layer_cfg=dict(v_dim=DIM, l_dim=DIM, embed_dim=32, num_heads=4, init_values=1e-4))
    built['decoder']['layer_cfg']['cross_attn_text_cfg'] = attention
    built['bbox_head'].update(contrastive_cfg=dict(max_text_len=32))
    built['bbox_head'].pop('loss_iou')


def batch(sizes: tuple[tuple[int, int], ...] = ((64, 64), (48, 64)), **changes: object) -> dict:
    """`tiny_dino.batch` with the words that Grounding DINO looks for."""
    data = tiny.batch(sizes, **changes)
    for sample in data['data_samples']:
        sample.text, sample.custom_entities = ('dog', 'cat', 'bird'), True
    return data


def write_bert(folder: str) -> None:
    """A random BERT of two layers with its word list."""
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', 'dog', 'cat', 'bird']
    path = Path(folder, 'vocab.txt')
    path.write_text('\n'.join(words))
    transformers.BertTokenizer(str(path)).save_pretrained(folder)
    transformers.BertModel(transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).save_pretrained(folder)
