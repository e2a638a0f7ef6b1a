"""Trident, frozen CLIP ViT-B/16, on PASCAL VOC 2012 with background.

Metric: published, mIoU 67.1 (not measured here yet).
Command: python tools/test.py configs/dense_clip/trident_clip-b16_pascal-voc-21.py
Source: Shi et al., ICCV 2025.
"""
_base_ = ['_base_/trident.py', '_base_/pascal_voc_21.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=_base_.background),
    rule=dict(threshold=0.2))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_448))
