"""Frozen-DETR: Co-DINO, 4 levels, Swin-B + frozen CLIP ViT-L/14 at 448 px, 12 epochs.

Published: 57.6 AP on COCO val2017 (without CLIP: 56.8), 732 GFLOPs at test time; not trained by us.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_co-dino_4scale_swin-b_clip-l448_1x_coco.py 8
Source: Frozen-DETR (arXiv 2410.19635), table 2; iSEE-Laboratory/Frozen-DETR, Co-DINO_AdaMixer_DINO-lvis.
"""
_base_ = './co-dino_4scale_swin-b_1x_coco.py'

model = dict(enhancers=[
    dict(tower=dict(type='frozenmm.CLIPTower', model='ViT-L/14@336px', resize_mode='center_crop', size=448),
         image_queries=5, patch_maps=['patch'])
])
