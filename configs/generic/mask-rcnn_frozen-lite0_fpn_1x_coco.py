"""Mask R-CNN with frozen EfficientNet-Lite0 as backbone; its weights come with the embedded package, no download.

Metric: COCO box and mask AP (not measured yet).
Command: python tools/train.py configs/generic/mask-rcnn_frozen-lite0_fpn_1x_coco.py
"""
_base_ = ['_base_/mask-rcnn.py', '_base_/coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='frozenmm.FrozenBackbone',
        tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res2', 'res3', 'res4', 'res5'])),
    neck=dict(in_channels=[24, 40, 112, 320]))
