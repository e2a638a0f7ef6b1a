"""FC-CLIP, frozen ConvNeXt-L CLIP, trained on COCO panoptic, evaluated on Cityscapes.

Metric: published, PQ 44.0, AP 26.8, mIoU 56.2 (not measured here yet).
Command: python tools/test.py configs/fc_clip/evaluation/fc_clip_convnext-l_cityscapes.py CHECKPOINT
Source: Yu et al., NeurIPS 2023. Other towers: python tools/test.py CONFIG CHECKPOINT --data cityscapes
"""
_base_ = ['../_base_/fc_clip_model.py', '../../_base_/datasets/cityscapes.py', '../_base_/runtime.py']

model = dict(classifier=dict(vocabulary=_base_.vocabulary), postprocess=_base_.postprocess)
