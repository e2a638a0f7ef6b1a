"""CLIP ViT-L/14 on both sides, Mosaic-4, trained on FSS-1000.

Metric: mIoU and FB-IoU of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_clip-l14_clip-l14_mosaic4.py
Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022).
"""
_base_ = ['_base_/fusioner.py', '_base_/mosaic4.py']
