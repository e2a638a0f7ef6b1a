"""Quickstart, row (c): row (a) with frozen EfficientNet-Lite0 in the place of its own backbone.

Command: python tools/train.py configs/quickstart/dino_frozen_scenes.py
"""
_base_ = 'dino_scratch_scenes.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='frozenmm.FrozenBackbone',
        tower=dict(
            type='frozenmm.RememberingTower',
            tower=dict(
                type='frozenmm.EfficientNetLiteTower', resize_mode='none', out_maps=['res3', 'res4', 'res5']))),
    neck=dict(in_channels=[40, 112, 320]))
