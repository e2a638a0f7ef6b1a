"""FCN head on the maps of a frozen EfficientNet-Lite0; CamVid, 11 classes, ten minutes of one core.

Metric: mIoU 42.4 on 101 validation pictures, seed 0, after 454 CPU seconds of training and 146 for the features.
Command: python tools/train.py configs/generic/fcn_frozen-lite0_camvid.py
Source: Long et al., "Fully Convolutional Networks" (2015), sizes of our own.
"""
_base_ = '_base_/camvid.py'

model = dict(decode_head=dict(
    type='FCNHead', input_transform='resize_concat', channels=128, num_convs=2, kernel_size=1, concat_input=False))
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', iterations=335),
]
