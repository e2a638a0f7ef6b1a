"""FC-CLIP, frozen ConvNeXt-L CLIP, trained on COCO panoptic, evaluated on Mapillary Vistas.

Metric: published, PQ 18.3, mIoU 27.8 (not measured here yet).
Command: python tools/test.py configs/fc_clip/evaluation/fc_clip_convnext-l_mapillary-vistas.py CHECKPOINT
Source: Yu et al., NeurIPS 2023. Other towers: python tools/test.py CONFIG CHECKPOINT --data mapillary_vistas
"""
_base_ = ['../_base_/fc_clip_model.py', '../../_base_/datasets/mapillary_vistas.py', '../_base_/runtime.py']

model = dict(classifier=dict(vocabulary=_base_.vocabulary), postprocess=_base_.postprocess)
