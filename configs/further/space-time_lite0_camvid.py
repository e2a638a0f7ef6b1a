"""Attention over clips of four frames behind a frozen EfficientNet-Lite0; CamVid, 11 classes, frames in order.

Metric: mIoU and flicker, against single frames, in benchmarks/results/camvid_heads.json.
Command: python tools/train.py configs/further/space-time_lite0_camvid.py
Source: Frozen in Time (ICCV 2021).
"""
_base_ = 'frozen-llm-block_lite0_camvid.py'

model = dict(neck=dict(_delete_=True, type='frozenmm.SpaceTimeNeck', in_channels=[24, 40, 112, 320], frames=4))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(1.0, 1.0), keep_ratio=True),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4,
    sampler=dict(type='InfiniteSampler', shuffle=False),  # neighbours make a clip
    dataset=dict(pipeline=train_pipeline))
