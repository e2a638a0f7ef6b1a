"""Frozen-DETR with two models: CLIP ViT-L/14 (image queries and a level) and DINOv2 ViT-L/14 (a level), 8 GPUs x 2.

Published: 53.8 AP on COCO val2017; not trained by us. Which batch size gave it is open: the released script uses 4 GPUs
x 2 images, which is `..._4xb2_1x_coco.py` here.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_dino_4scale_r50_clip-l336_dinov2-l_1x_coco.py 8
Source: Frozen-DETR (arXiv 2410.19635), table of several foundation models.
"""
_base_ = './frozen_dino_4scale_r50_clip-l336_1x_coco.py'

model = dict(enhancers=[
    dict(
        tower=dict(type='frozenmm.CLIPTower', model='ViT-L/14@336px', resize_mode='center_crop'),
        image_queries=5,
        patch_maps=['patch']),
    dict(
        tower=dict(type='frozenmm.DINOv2Tower', model='dinov2_vitl14', size=336, resize_mode='center_crop'),
        patch_maps=['patch']),
])
