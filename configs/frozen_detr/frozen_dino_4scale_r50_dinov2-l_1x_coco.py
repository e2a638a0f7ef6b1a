"""Frozen-DETR with DINOv2 ViT-L/14 alone, 12 epochs.

Published: 53.3 AP on COCO val2017; not trained by us. The paper does not say where the image queries of this row come
from; here they are DINOv2's own class tokens, masked to the cells of the image as in CLIP.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_dino_4scale_r50_dinov2-l_1x_coco.py 8
Source: Frozen-DETR (arXiv 2410.19635), appendix.
"""
_base_ = './frozen_dino_4scale_r50_clip-l336_1x_coco.py'

model = dict(enhancers=[
    dict(
        tower=dict(type='frozenmm.DINOv2Tower', model='dinov2_vitl14', size=336, resize_mode='center_crop'),
        image_queries=5,
        patch_maps=['patch'])
])
