"""UPerHead on a frozen timm ViT-B/16 (ImageNet-21k, then 1k), through a light pyramid.

Metric: ADE20K mIoU (not measured yet).
Command: python tools/train.py configs/generic/upernet_frozen-vit-b16_ade20k.py
"""
_base_ = '_base_/upernet_ade20k.py'

model = dict(
    backbone=dict(
        tower=dict(type='frozenmm.TimmTower', model='vit_base_patch16_224.augreg2_in21k_ft_in1k', precision='bf16'),
        pyramid=dict(strides=[4, 8, 16, 32], channels=256)),
    decode_head=dict(in_channels=[256, 256, 256, 256]))
