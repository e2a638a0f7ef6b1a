"""SCLIP, frozen CLIP ViT-B/16, on PASCAL Context with background.

Metric: published, mIoU 31.74 (not measured here yet).
Command: python tools/test.py configs/dense_clip/sclip_clip-b16_pascal-context-60.py
Source: Wang et al., ECCV 2024.
"""
_base_ = ['_base_/sclip.py', '_base_/pascal_context_60.py']

model = dict(
    vocabulary=_base_.vocabulary,
    text=dict(background=['background']),
    rule=dict(logit_scale=50.0, threshold=0.1))
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
