"""Trident, frozen CLIP ViT-B/16, on PASCAL Context with background.

Metric: published, mIoU 38.6 (not measured here yet).
Command: python tools/test.py configs/dense_clip/trident_clip-b16_pascal-context-60.py
Source: Shi et al., ICCV 2025.
"""
_base_ = ['_base_/trident.py', '_base_/pascal_context_60.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=['background']),
    rule=dict(threshold=0.15),
    refine=dict(sam=dict(coarse=0.15)))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_576))
