"""Trident, frozen CLIP ViT-B/16, on PASCAL VOC 2012 without background.

Metric: published, mIoU 84.5 (not measured here yet).
Command: python tools/test.py configs/dense_clip/trident_clip-b16_pascal-voc-20.py
Source: Shi et al., ICCV 2025.
"""
_base_ = ['_base_/trident.py', '../_base_/datasets/pascal_voc_20.py']

model = dict(
    vocabulary=_base_.vocabulary,
    method=dict(aggregate=dict(factor=0.0)),
    test_cfg=dict(stride=(112, 112)))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
