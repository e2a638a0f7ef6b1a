"""Frozen-DETR: Co-DINO, 4 levels, ResNet-50 + frozen CLIP ViT-L/14 at 336 px, 24 epochs.

Published: 54.3 AP on COCO val2017; not trained by us.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_co-dino_4scale_r50_clip-l336_2x_coco.py 8
Source: Frozen-DETR (arXiv 2410.19635), table 2.
"""
_base_ = './frozen_co-dino_4scale_r50_clip-l336_1x_coco.py'

train_cfg = dict(max_epochs=24)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[20], gamma=0.1)]
