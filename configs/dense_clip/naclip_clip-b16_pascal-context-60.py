"""NACLIP, frozen CLIP ViT-B/16, on PASCAL Context with background.

Metric: published, mIoU 34.99 (not measured here yet).
Command: python tools/test.py configs/dense_clip/naclip_clip-b16_pascal-context-60.py
Source: Hajimiri et al., WACV 2025.
"""
_base_ = ['_base_/naclip.py', '_base_/pascal_context_60.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=['background']),
    rule=dict(threshold=0.1))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
