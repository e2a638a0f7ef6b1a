"""Frozen-DETR: Co-DINO, 4 levels, ResNet-50 + frozen CLIP ViT-L/14 at 336 px, 12 epochs.

Published: 54.0 AP on COCO val2017, 400 GFLOPs at test time; not trained by us. Released files convert:
`python tools/convert.py co_dino OFFICIAL.pth OURS.safetensors`.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_co-dino_4scale_r50_clip-l336_1x_coco.py 8
Source: Frozen-DETR (arXiv 2410.19635), table 2; iSEE-Laboratory/Frozen-DETR, Co-DINO_AdaMixer_DINO-lvis.
"""
_base_ = [
    '../_base_/models/co_dino_4scale_r50.py',
    '../_base_/datasets/coco_dino.py',
    '../_base_/schedules/dino_1x.py',
    '../_base_/default_runtime.py',
]

model = dict(enhancers=[
    dict(tower=dict(type='frozenmm.CLIPTower', model='ViT-L/14@336px', resize_mode='center_crop'), image_queries=5,
         patch_maps=['patch'])
])
optim_wrapper = dict(optimizer=dict(lr=0.0002))
