"""FC-CLIP, frozen ConvNeXt-L CLIP, trained on COCO panoptic, evaluated on PASCAL VOC with background.

Metric: published, mIoU 81.8 (not measured here yet).
Command: python tools/test.py configs/fc_clip/evaluation/fc_clip_convnext-l_pascal-voc-21.py CHECKPOINT
Source: Yu et al., NeurIPS 2023. Other towers: python tools/test.py CONFIG CHECKPOINT --data pascal_voc_21
"""
_base_ = ['../_base_/fc_clip_model.py', '../../_base_/datasets/pascal_voc_21.py', '../_base_/runtime.py']

model = dict(classifier=dict(vocabulary=_base_.vocabulary), postprocess=_base_.postprocess)
