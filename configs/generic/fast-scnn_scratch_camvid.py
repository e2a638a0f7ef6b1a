"""Fast-SCNN trained from scratch, to compare with the frozen networks; CamVid, 11 classes, ten minutes of one core.

Metric: mIoU 40.1 on 101 validation pictures, seed 0, after 600 CPU seconds of training.
Command: python tools/train.py configs/generic/fast-scnn_scratch_camvid.py
Source: Poudel et al., "Fast-SCNN" (2019), at its own sizes.
"""
_base_ = '_base_/camvid.py'

model = dict(
    backbone=dict(_delete_=True, type='FastSCNN', norm_cfg={{_base_.norm_cfg}}, align_corners=False),
    decode_head=dict(
        type='DepthwiseSeparableFCNHead', in_channels=128, in_index=-1, channels=128, num_convs=2,
        concat_input=False))
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', iterations=459),
]
