"""FCN head on the maps of a frozen EfficientNet-Lite0; CamVid, 11 classes, ten minutes of one core.

Metric: mIoU in benchmarks/results/camvid_arms.json.
Command: python tools/train.py configs/generic/fcn_frozen-lite0_camvid.py
Source: Long et al., "Fully Convolutional Networks" (2015), sizes of our own.
"""
_base_ = '_base_/camvid.py'

model = dict(decode_head=dict(
    type='FCNHead', input_transform='resize_concat', channels=128, num_convs=2, kernel_size=1, concat_input=False))
