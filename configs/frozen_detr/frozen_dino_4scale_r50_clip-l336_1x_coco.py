"""Frozen-DETR: DINO, 4 levels, ResNet-50 + frozen CLIP ViT-L/14 at 336 px, 12 epochs.

Published: 51.9 AP on COCO val2017 (plain DINO: 49.0), 400 GFLOPs, 8 GPUs x 2 images; not trained by us. Neck bias, tied
branches and the clamp of reference boxes are those of the official code, so that its converted checkpoints fit:
`python tools/convert.py frozen_detr OFFICIAL.pth OURS.safetensors`.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_dino_4scale_r50_clip-l336_1x_coco.py 8
Source: Frozen-DETR (arXiv 2410.19635), table 1; iSEE-Laboratory/Frozen-DETR, DINO-coco.
"""
_base_ = './dino_4scale_r50_1x_coco.py'

model = dict(
    type='frozenmm.EnhancedDINO',
    enhancers=[
        dict(
            tower=dict(type='frozenmm.CLIPTower', model='ViT-L/14@336px', resize_mode='center_crop'),
            image_queries=5,
            patch_maps=['patch'])
    ],
    neck=dict(bias=True),
    bbox_head=dict(type='frozenmm.EnhancedDINOHead', tie_branches=True, compat=True))
optim_wrapper = dict(paramwise_cfg=dict(bypass_duplicate=True))  # tied branches appear under several names
