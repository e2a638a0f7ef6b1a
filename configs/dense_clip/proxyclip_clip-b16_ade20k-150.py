"""ProxyCLIP, frozen CLIP ViT-B/16, on ADE20K with 150 classes.

Metric: published, mIoU 20.2 (not measured here yet).
Command: python tools/test.py configs/dense_clip/proxyclip_clip-b16_ade20k-150.py
Source: Lan et al., ECCV 2024.
"""
_base_ = ['_base_/proxyclip.py', '../_base_/datasets/ade20k_150_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_448))
