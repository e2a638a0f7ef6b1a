"""MaskCLIP, frozen CLIP ViT-B/16, on PASCAL VOC 2012 without background.

Metric: published, mIoU 49.5 (not measured here yet).
Command: python tools/test.py configs/dense_clip/maskclip_clip-b16_pascal-voc-20.py
Source: Zhou et al., ECCV 2022.
"""
_base_ = ['_base_/maskclip.py', '../_base_/datasets/pascal_voc_20.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_512))
