"""Mask R-CNN with its own ResNet-50; frozen DINOv2 ViT-S/14 features join every level of the FPN through a zero gate.

Metric: COCO box and mask AP (not measured yet).
Command: python tools/train.py configs/generic/mask-rcnn_r50_fpn_frozen-dinov2-s-neck_1x_coco.py
"""
_base_ = ['_base_/mask-rcnn.py', '_base_/coco.py']

model = dict(
    neck=dict(
        _delete_=True,
        type='frozenmm.FrozenFeatureNeck',
        neck=dict(type='mmdet.FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
        tower=dict(type='frozenmm.TimmTower', model='vit_small_patch14_dinov2.lvd142m'),
        fusion='add'))
