"""FC-CLIP, frozen ConvNeXt-L CLIP, trained on COCO panoptic, evaluated on ADE20K with 847 classes.

Metric: published, mIoU 14.8 (not measured here yet).
Command: python tools/test.py configs/fc_clip/evaluation/fc_clip_convnext-l_ade20k-847.py CHECKPOINT
Source: Yu et al., NeurIPS 2023. Other towers: python tools/test.py CONFIG CHECKPOINT --data ade20k_847
"""
_base_ = ['../_base_/fc_clip_model.py', '../../_base_/datasets/ade20k_847.py', '../_base_/runtime.py']

model = dict(classifier=dict(vocabulary=_base_.vocabulary), postprocess=_base_.postprocess)
