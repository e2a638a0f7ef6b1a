"""NACLIP, frozen CLIP ViT-B/16, on Cityscapes.

Metric: published, mIoU 38.27 (not measured here yet).
Command: python tools/test.py configs/dense_clip/naclip_clip-b16_cityscapes.py
Source: Hajimiri et al., WACV 2025.
"""
_base_ = ['_base_/naclip.py', '../_base_/datasets/cityscapes_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_560))
