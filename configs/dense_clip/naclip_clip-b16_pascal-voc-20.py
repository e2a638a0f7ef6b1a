"""NACLIP, frozen CLIP ViT-B/16, on PASCAL VOC 2012 without background.

Metric: published, mIoU 83.03 (not measured here yet).
Command: python tools/test.py configs/dense_clip/naclip_clip-b16_pascal-voc-20.py
Source: Hajimiri et al., WACV 2025.
"""
_base_ = ['_base_/naclip.py', '../_base_/datasets/pascal_voc_20.py']

model = dict(
    vocabulary=_base_.vocabulary,
    test_cfg=dict(_delete_=True, mode='whole'))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
