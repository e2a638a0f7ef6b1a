"""NACLIP, frozen CLIP ViT-B/16, on PASCAL Context with 59 classes.

Metric: published, mIoU 38.35 (not measured here yet).
Command: python tools/test.py configs/dense_clip/naclip_clip-b16_pascal-context-59.py
Source: Hajimiri et al., WACV 2025.
"""
_base_ = ['_base_/naclip.py', '../_base_/datasets/pascal_context_59.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
