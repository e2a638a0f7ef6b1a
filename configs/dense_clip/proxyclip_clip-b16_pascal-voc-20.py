"""ProxyCLIP, frozen CLIP ViT-B/16, on PASCAL VOC 2012 without background.

Metric: published, mIoU 80.3 (not measured here yet).
Command: python tools/test.py configs/dense_clip/proxyclip_clip-b16_pascal-voc-20.py
Source: Lan et al., ECCV 2024.
"""
_base_ = ['_base_/proxyclip.py', '../_base_/datasets/pascal_voc_20.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
