"""CLIP ResNet-50 and its text encoder; PASCAL-5i, fold 0.

Metric: mIoU and FB-IoU of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_clip-rn50_clip-rn50_pascal5i-fold0.py
Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022).
"""
_base_ = 'fusioner_clip-l14_clip-l14_pascal5i-fold0.py'

model = dict(
    backbone=dict(tower=dict(model='RN50', out_maps=['patch'])),
    decode_head=dict(in_channels=1024, text_tower=dict(model='RN50')))
