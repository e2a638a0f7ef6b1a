"""Frozen-DETR with CLIP and DINOv2 as in the released script: 4 GPUs x 2 images, the learning rate NOT halved.

Published: 53.8 AP on COCO val2017; not trained by us.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_dino_4scale_r50_clip-l336_dinov2-l_4xb2_1x_coco.py 4
Source: iSEE-Laboratory/Frozen-DETR, DINO-coco, script with two foundation models.
"""
_base_ = './frozen_dino_4scale_r50_clip-l336_dinov2-l_1x_coco.py'

auto_scale_lr = dict(base_batch_size=8)
