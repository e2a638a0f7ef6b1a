"""ProxyCLIP, frozen CLIP ViT-B/16, on Cityscapes.

Metric: published, mIoU 38.1 (not measured here yet).
Command: python tools/test.py configs/dense_clip/proxyclip_clip-b16_cityscapes.py
Source: Lan et al., ECCV 2024.
"""
_base_ = ['_base_/proxyclip.py', '../_base_/datasets/cityscapes_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary,
    test_cfg=dict(crop_size=(224, 224)))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_448))
