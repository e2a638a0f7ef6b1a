"""Frozen-DETR: DINO, 4 levels, ResNet-50 + frozen CLIP ViT-L/14 at 336 px, on LVIS v1 for 24 epochs.

Published: box AP 41.0 on LVIS v1 val, 31.7 / 41.0 / 45.1 for rare, common and frequent classes; not trained by us.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_dino_4scale_r50_clip-l336_2x_lvis.py 8
Source: Frozen-DETR (arXiv 2410.19635), table of LVIS; the README of its code.
"""
_base_ = './dino_4scale_r50_2x_lvis.py'

model = dict(enhancers=[
    dict(tower=dict(type='frozenmm.CLIPTower', model='ViT-L/14@336px', resize_mode='center_crop'), image_queries=5,
         patch_maps=['patch'])
])
