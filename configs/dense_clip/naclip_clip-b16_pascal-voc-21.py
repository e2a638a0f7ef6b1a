"""NACLIP, frozen CLIP ViT-B/16, on PASCAL VOC 2012 with background.

Metric: published, mIoU 64.07 (not measured here yet).
Command: python tools/test.py configs/dense_clip/naclip_clip-b16_pascal-voc-21.py
Source: Hajimiri et al., WACV 2025.
"""
_base_ = ['_base_/naclip.py', '_base_/pascal_voc_21.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=_base_.background),
    rule=dict(threshold=0.1),
    test_cfg=dict(_delete_=True, mode='whole'))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
