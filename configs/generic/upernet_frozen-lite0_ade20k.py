"""UPerHead on frozen EfficientNet-Lite0; its weights come with the embedded package, no download.

Metric: ADE20K mIoU (not measured yet).
Command: python tools/train.py configs/generic/upernet_frozen-lite0_ade20k.py
"""
_base_ = '_base_/upernet_ade20k.py'

model = dict(
    backbone=dict(tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res2', 'res3', 'res4', 'res5'])),
    decode_head=dict(in_channels=[24, 40, 112, 320]))
