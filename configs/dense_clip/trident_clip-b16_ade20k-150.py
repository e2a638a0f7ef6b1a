"""Trident, frozen CLIP ViT-B/16, on ADE20K with 150 classes.

Metric: published, mIoU 21.9 (not measured here yet).
Command: python tools/test.py configs/dense_clip/trident_clip-b16_ade20k-150.py
Source: Shi et al., ICCV 2025.
"""
_base_ = ['_base_/trident.py', '../_base_/datasets/ade20k_150_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary,
    method=dict(aggregate=dict(keep_negative=False)),
    refine=dict(sam=dict(coarse=0.05)))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_576))
