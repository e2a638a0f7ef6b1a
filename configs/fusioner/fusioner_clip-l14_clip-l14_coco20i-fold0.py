"""CLIP ViT-L/14 on both sides, COCO-20i, fold 0.

Metric: mIoU and FB-IoU of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_clip-l14_clip-l14_coco20i-fold0.py
Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022).
"""
_base_ = ['_base_/fusioner.py', '_base_/coco20i.py']
