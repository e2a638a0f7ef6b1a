"""NACLIP, frozen CLIP ViT-B/16, on COCO-Object.

Metric: published, mIoU 36.19 (not measured here yet).
Command: python tools/test.py configs/dense_clip/naclip_clip-b16_coco-object.py
Source: Hajimiri et al., WACV 2025.
"""
_base_ = ['_base_/naclip.py', '_base_/coco_object.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=_base_.background),
    rule=dict(threshold=0.1))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
