"""SCLIP, frozen CLIP ViT-B/16, on PASCAL VOC 2012 with background.

Metric: published, mIoU 59.63 (not measured here yet).
Command: python tools/test.py configs/dense_clip/sclip_clip-b16_pascal-voc-21.py
Source: Wang et al., ECCV 2024.
"""
_base_ = ['_base_/sclip.py', '_base_/pascal_voc_21.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=_base_.background),
    rule=dict(logit_scale=65.0, threshold=0.1, area_threshold=0.1))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
