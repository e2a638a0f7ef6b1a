"""FC-CLIP, frozen ConvNeXt-L CLIP, trained on COCO panoptic, evaluated on BDD100K, panoptic.

Metric: published, PQ 17.9 (run again by the authors of FrozenSeg) (not measured here yet).
Command: python tools/test.py configs/fc_clip/evaluation/fc_clip_convnext-l_bdd100k-panoptic.py CHECKPOINT
Source: Yu et al., NeurIPS 2023. Other towers: python tools/test.py CONFIG CHECKPOINT --data bdd100k_panoptic
"""
_base_ = ['../_base_/fc_clip_model.py', '../../_base_/datasets/bdd100k_panoptic.py', '../_base_/runtime.py']

model = dict(classifier=dict(vocabulary=_base_.vocabulary), postprocess=_base_.postprocess)
