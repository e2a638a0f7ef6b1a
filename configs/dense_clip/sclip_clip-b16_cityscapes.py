"""SCLIP, frozen CLIP ViT-B/16, on Cityscapes.

Metric: published, mIoU 32.34 (not measured here yet).
Command: python tools/test.py configs/dense_clip/sclip_clip-b16_cityscapes.py
Source: Wang et al., ECCV 2024.
"""
_base_ = ['_base_/sclip.py', '../_base_/datasets/cityscapes_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_560))
