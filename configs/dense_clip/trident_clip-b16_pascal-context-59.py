"""Trident, frozen CLIP ViT-B/16, on PASCAL Context with 59 classes.

Metric: published, mIoU 42.2 (not measured here yet).
Command: python tools/test.py configs/dense_clip/trident_clip-b16_pascal-context-59.py
Source: Shi et al., ICCV 2025.
"""
_base_ = ['_base_/trident.py', '../_base_/datasets/pascal_context_59.py']

model = dict(
    vocabulary=_base_.vocabulary,
    refine=dict(sam=dict(coarse=0.15)))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_576))
