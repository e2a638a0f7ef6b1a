"""DINO, 4 levels, ResNet-50, on LVIS v1 for 24 epochs: the baseline of Frozen-DETR, and the base of its LVIS configs.

Published: box AP 34.4 on LVIS v1 val, 22.5 / 33.4 / 40.8 for rare, common and frequent classes; not trained by us.
Command: bash tools/dist_train.sh configs/frozen_detr/dino_4scale_r50_2x_lvis.py 8
Source: Frozen-DETR (arXiv 2410.19635), table of LVIS; iSEE-Laboratory/Frozen-DETR, Co-DINO_AdaMixer_DINO-lvis.
"""
_base_ = [
    '../_base_/models/dino_4scale_r50_lvis.py',
    '../_base_/datasets/lvis_boxes.py',
    '../_base_/schedules/dino_1x.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_epochs=24, val_interval=2)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[20], gamma=0.1)]
