"""Frozen-DETR with DINOv2 ViT-L/14 with registers alone, 12 epochs.

Published: 53.9 AP on COCO val2017; not trained by us. Image queries as in `frozen_dino_4scale_r50_dinov2-l_1x_coco.py`.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_dino_4scale_r50_dinov2-l-reg_1x_coco.py 8
Source: Frozen-DETR (arXiv 2410.19635), appendix.
"""
_base_ = './frozen_dino_4scale_r50_clip-l336_1x_coco.py'

model = dict(enhancers=[
    dict(
        tower=dict(
            type='frozenmm.DINOv2Tower',
            model='dinov2_vitl14_reg',
            interpolate_antialias=False,  # as the official Frozen-DETR
            size=336,
            resize_mode='center_crop'),
        image_queries=5,
        patch_maps=['patch'])
])
