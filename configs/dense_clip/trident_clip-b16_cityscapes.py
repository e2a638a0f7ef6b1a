"""Trident, frozen CLIP ViT-B/16, on Cityscapes.

Metric: published, mIoU 42.9 (not measured here yet).
Command: python tools/test.py configs/dense_clip/trident_clip-b16_cityscapes.py
Source: Shi et al., ICCV 2025.
"""
_base_ = ['_base_/trident.py', '../_base_/datasets/cityscapes_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary,
    method=dict(aggregate=dict(factor=3.0, keep_negative=False, halves=True)),
    refine=dict(sam=dict(coarse=0.1)))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_688))
