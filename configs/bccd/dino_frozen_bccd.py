"""DINO on frozen EfficientNet-Lite0 as its only backbone, on BCCD; features are computed once for each picture.

Metric: COCO box AP on 87 validation pictures: see README.md beside this file.
Command: python tools/train.py configs/bccd/dino_frozen_bccd.py --cfg-options data_root=path/to/bccd
"""
_base_ = 'dino_scratch_bccd.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='frozenmm.FrozenBackbone',
        tower=dict(
            type='frozenmm.RememberingTower',
            tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res3', 'res4', 'res5']))),
    neck=dict(in_channels=[40, 112, 320]))
