"""SCLIP, frozen CLIP ViT-B/16, on COCO-Object.

Metric: published, mIoU 33.52 (not measured here yet).
Command: python tools/test.py configs/dense_clip/sclip_clip-b16_coco-object.py
Source: Wang et al., ECCV 2024.
"""
_base_ = ['_base_/sclip.py', '_base_/coco_object.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=_base_.background),
    rule=dict(logit_scale=50.0, threshold=0.1))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
