"""SCLIP, frozen CLIP ViT-B/16, on ADE20K with 150 classes.

Metric: published, mIoU 16.45 (not measured here yet).
Command: python tools/test.py configs/dense_clip/sclip_clip-b16_ade20k-150.py
Source: Wang et al., ECCV 2024.
"""
_base_ = ['_base_/sclip.py', '../_base_/datasets/ade20k_150_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
