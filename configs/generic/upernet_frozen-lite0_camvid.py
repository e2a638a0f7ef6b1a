"""UPerHead on the maps of a frozen EfficientNet-Lite0; CamVid, 11 classes, ten minutes of one core.

Metric: mIoU 43.5 on 101 validation pictures, seed 0, after 454 CPU seconds of training and 146 for the features.
Command: python tools/train.py configs/generic/upernet_frozen-lite0_camvid.py
Source: Xiao et al., "Unified Perceptual Parsing" (2018), sizes of our own.
"""
_base_ = '_base_/camvid.py'

model = dict(decode_head=dict(type='UPerHead', pool_scales=(1, 2, 3, 6), channels=64))
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', iterations=246),
]
