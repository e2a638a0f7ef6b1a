"""ProxyCLIP, frozen CLIP ViT-B/16, on PASCAL VOC 2012 with background.

Metric: published, mIoU 61.3 (not measured here yet).
Command: python tools/test.py configs/dense_clip/proxyclip_clip-b16_pascal-voc-21.py
Source: Lan et al., ECCV 2024.
"""
_base_ = ['_base_/proxyclip.py', '_base_/pascal_voc_21.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=_base_.background),
    rule=dict(threshold=0.2))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
