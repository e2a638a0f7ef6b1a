"""DINOv2 ViT-B/14 and the text encoder of CLIP ViT-L/14; PASCAL-5i, fold 0.

Metric: mIoU and FB-IoU of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_dinov2-b14_clip-l14_pascal5i-fold0.py
Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022).
"""
_base_ = 'fusioner_clip-l14_clip-l14_pascal5i-fold0.py'

model = dict(
    backbone=dict(tower=dict(_delete_=True, type='frozenmm.DINOv2Tower', model='dinov2_vitb14')))
