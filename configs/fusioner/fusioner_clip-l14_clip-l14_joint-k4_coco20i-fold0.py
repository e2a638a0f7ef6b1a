"""Four classes and two absent ones at once, in one sequence; COCO-20i, fold 0.

Metric: mIoU and FB-IoU of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_clip-l14_clip-l14_joint-k4_coco20i-fold0.py
Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022).
"""
_base_ = 'fusioner_clip-l14_clip-l14_coco20i-fold0.py'

train_dataloader = dict(dataset=dict(asking=dict(classes_per_episode=4, negatives=2)))
