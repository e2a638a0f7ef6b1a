"""Plain DINO, 4 levels, ResNet-50, 12 epochs: the baseline of Frozen-DETR and the base of its configs here.

Published: 49.0 AP on COCO val2017 (Frozen-DETR, table of DINO baselines); the same model and schedule as mmdet's
`dino-4scale_r50_8xb2-12e_coco`.
Command: bash tools/dist_train.sh configs/frozen_detr/dino_4scale_r50_1x_coco.py 8
Source: DINO (arXiv 2203.03605), mmdet 3.3.
"""
_base_ = [
    '../_base_/models/dino_4scale_r50.py',
    '../_base_/datasets/coco_dino.py',
    '../_base_/schedules/dino_1x.py',
    '../_base_/default_runtime.py',
]
