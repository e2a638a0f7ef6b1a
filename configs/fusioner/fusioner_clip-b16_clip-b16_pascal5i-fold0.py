"""CLIP ViT-B/16 on both sides; PASCAL-5i, fold 0.

Metric: mIoU and FB-IoU of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_clip-b16_clip-b16_pascal5i-fold0.py
Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022).
"""
_base_ = 'fusioner_clip-l14_clip-l14_pascal5i-fold0.py'

model = dict(
    backbone=dict(tower=dict(model='ViT-B/16')),
    decode_head=dict(in_channels=512, text_tower=dict(model='ViT-B/16')))
