"""ProxyCLIP, frozen CLIP ViT-B/16, on COCO-Stuff 164k.

Metric: published, mIoU 26.5 (not measured here yet).
Command: python tools/test.py configs/dense_clip/proxyclip_clip-b16_coco-stuff-164k.py
Source: Lan et al., ECCV 2024.
"""
_base_ = ['_base_/proxyclip.py', '_base_/coco_stuff_164k.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
