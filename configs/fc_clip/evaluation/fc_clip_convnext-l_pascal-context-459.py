"""FC-CLIP, frozen ConvNeXt-L CLIP, trained on COCO panoptic, evaluated on PASCAL Context with 459 classes.

Metric: published, mIoU 18.2 (not measured here yet).
Command: python tools/test.py configs/fc_clip/evaluation/fc_clip_convnext-l_pascal-context-459.py CHECKPOINT
Source: Yu et al., NeurIPS 2023. Other towers: python tools/test.py CONFIG CHECKPOINT --data pascal_context_459
"""
_base_ = ['../_base_/fc_clip_model.py', '../../_base_/datasets/pascal_context_459.py', '../_base_/runtime.py']

model = dict(classifier=dict(vocabulary=_base_.vocabulary), postprocess=_base_.postprocess)
