"""FC-CLIP, frozen ConvNeXt-L CLIP, trained on COCO panoptic, evaluated on PASCAL Context with 59 classes.

Metric: published, mIoU 58.4 (not measured here yet).
Command: python tools/test.py configs/fc_clip/evaluation/fc_clip_convnext-l_pascal-context-59.py CHECKPOINT
Source: Yu et al., NeurIPS 2023. Other towers: python tools/test.py CONFIG CHECKPOINT --data pascal_context_59
"""
_base_ = ['../_base_/fc_clip_model.py', '../../_base_/datasets/pascal_context_59.py', '../_base_/runtime.py']

model = dict(classifier=dict(vocabulary=_base_.vocabulary), postprocess=_base_.postprocess)
