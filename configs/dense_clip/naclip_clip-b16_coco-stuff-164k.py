"""NACLIP, frozen CLIP ViT-B/16, on COCO-Stuff 164k.

Metric: published, mIoU 25.69 (not measured here yet).
Command: python tools/test.py configs/dense_clip/naclip_clip-b16_coco-stuff-164k.py
Source: Hajimiri et al., WACV 2025.
"""
_base_ = ['_base_/naclip.py', '_base_/coco_stuff_164k.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
