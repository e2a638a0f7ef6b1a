"""SCLIP, frozen CLIP ViT-B/16, on PASCAL Context with 59 classes.

Metric: published, mIoU 34.46 (not measured here yet).
Command: python tools/test.py configs/dense_clip/sclip_clip-b16_pascal-context-59.py
Source: Wang et al., ECCV 2024.
"""
_base_ = ['_base_/sclip.py', '../_base_/datasets/pascal_context_59.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
