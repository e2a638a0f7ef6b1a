"""Mask R-CNN on frozen DINOv2 ViT-S/14 (timm's weights): a light pyramid makes four levels of its single one.

Metric: COCO box and mask AP (not measured yet).
Command: python tools/train.py configs/generic/mask-rcnn_frozen-dinov2-s_1x_coco.py
Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (2022), for the pyramid.
"""
_base_ = ['_base_/mask-rcnn.py', '_base_/coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='frozenmm.FrozenBackbone',
        tower=dict(type='frozenmm.TimmTower', model='vit_small_patch14_dinov2.lvd142m'),
        pyramid=dict(strides=[4, 8, 16, 32], channels=256)),
    neck=dict(in_channels=[256, 256, 256, 256]))
