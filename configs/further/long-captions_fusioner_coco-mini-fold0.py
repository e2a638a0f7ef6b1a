"""Fusioner with a frozen language model as text tower, seen from three facets; coco_mini fold 0.

Metric: mIoU of unseen classes; not measured, because no weights of a language model come with frozenmm.
Command: python tools/train.py configs/further/long-captions_fusioner_coco-mini-fold0.py --cfg-options
         model.decode_head.text_tower.folder=path/to/language_model
Source: FLAME (CVPR 2025).
"""
_base_ = '../fusioner/fusioner_lite0_minilm_coco-mini-fold0.py'

model = dict(decode_head=dict(
    text_tower=dict(_delete_=True, type='frozenmm.LongCaptionTower', folder='weights/language_model'),
    masks=dict(shared_map=None),
    in_channels=[320]),
    backbone=dict(tower=dict(tower=dict(out_maps=['res5']))))
