"""UPerHead on the maps of a frozen EfficientNet-Lite0; CamVid, 11 classes, ten minutes of one core.

Metric: mIoU in benchmarks/results/camvid_arms.json.
Command: python tools/train.py configs/generic/upernet_frozen-lite0_camvid.py
Source: Xiao et al., "Unified Perceptual Parsing" (2018), sizes of our own.
"""
_base_ = '_base_/camvid.py'

model = dict(decode_head=dict(type='UPerHead', pool_scales=(1, 2, 3, 6), channels=64))
