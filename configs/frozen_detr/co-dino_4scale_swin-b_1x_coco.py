"""Co-DINO, 4 levels, Swin-B, 12 epochs: the baseline of Frozen-DETR's strongest row.

Published: 56.8 AP on COCO val2017, 513 GFLOPs at test time; not trained by us. The authors limit the long side to 1200
in training.
Command: bash tools/dist_train.sh configs/frozen_detr/co-dino_4scale_swin-b_1x_coco.py 8
Source: Frozen-DETR (arXiv 2410.19635), table 2; Co-DETR (arXiv 2211.12860).
"""
_base_ = [
    '../_base_/models/co_dino_4scale_swin-b.py',
    '../_base_/datasets/coco_dino.py',
    '../_base_/schedules/dino_1x.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(
    optimizer=dict(lr=0.0002, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0), relative_position_bias_table=dict(decay_mult=0.0))))
