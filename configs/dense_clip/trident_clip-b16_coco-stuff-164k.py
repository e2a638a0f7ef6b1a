"""Trident, frozen CLIP ViT-B/16, on COCO-Stuff 164k.

Metric: published, mIoU 28.3 (not measured here yet).
Command: python tools/test.py configs/dense_clip/trident_clip-b16_coco-stuff-164k.py
Source: Shi et al., ICCV 2025.
"""
_base_ = ['_base_/trident.py', '_base_/coco_stuff_164k.py']

model = dict(
    vocabulary=_base_.vocabulary,
    refine=dict(sam=dict(coarse=0.05)))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_448))
