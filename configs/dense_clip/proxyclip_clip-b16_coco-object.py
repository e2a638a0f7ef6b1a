"""ProxyCLIP, frozen CLIP ViT-B/16, on COCO-Object.

Metric: published, mIoU 37.5 (not measured here yet).
Command: python tools/test.py configs/dense_clip/proxyclip_clip-b16_coco-object.py
Source: Lan et al., ECCV 2024.
"""
_base_ = ['_base_/proxyclip.py', '_base_/coco_object.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=_base_.background),
    rule=dict(threshold=0.25))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
