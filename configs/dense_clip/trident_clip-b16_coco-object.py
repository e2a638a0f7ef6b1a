"""Trident, frozen CLIP ViT-B/16, on COCO-Object.

Metric: published, mIoU 41.1 (not measured here yet).
Command: python tools/test.py configs/dense_clip/trident_clip-b16_coco-object.py
Source: Shi et al., ICCV 2025.
"""
_base_ = ['_base_/trident.py', '_base_/coco_object.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=_base_.background),
    rule=dict(threshold=0.25),
    refine=dict(sam=dict(coarse=0.25)))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_448))
