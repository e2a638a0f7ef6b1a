"""Plain DINO, 4 levels, ResNet-50, 24 epochs.

Published: 50.4 AP on COCO val2017. The step at epoch 20 is that of mmdet.
Command: bash tools/dist_train.sh configs/frozen_detr/dino_4scale_r50_2x_coco.py 8
Source: DINO (arXiv 2203.03605), mmdet 3.3.
"""
_base_ = './dino_4scale_r50_1x_coco.py'

train_cfg = dict(max_epochs=24)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[20], gamma=0.1)]
