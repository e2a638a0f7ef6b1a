"""FC-CLIP, frozen ConvNeXt-L CLIP, trained on COCO panoptic, evaluated on ADE20K with 150 classes.

Metric: published, PQ 26.8, AP 16.8, mIoU 34.1 (not measured here yet).
Command: python tools/test.py configs/fc_clip/evaluation/fc_clip_convnext-l_ade20k-150.py CHECKPOINT
Source: Yu et al., NeurIPS 2023. Other towers: python tools/test.py CONFIG CHECKPOINT --data ade20k_150
"""
_base_ = ['../_base_/fc_clip_model.py', '../../_base_/datasets/ade20k_150.py', '../_base_/runtime.py']

model = dict(classifier=dict(vocabulary=_base_.vocabulary), postprocess=_base_.postprocess)
