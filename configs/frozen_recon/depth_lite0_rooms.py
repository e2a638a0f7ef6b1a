"""The demonstration depth network: a light decoder on frozen EfficientNet-Lite0 maps, trained on generated rooms.

Metric: AbsRel after alignment on test rooms (`AlignedDepthMetric`); figures in the README. Runs on a CPU, no download.
Command: python tools/train.py configs/frozen_recon/depth_lite0_rooms.py
         python tools/export_depth.py configs/frozen_recon/depth_lite0_rooms.py work_dirs/depth_lite0_rooms/iter_500.pth
"""
_base_ = '_base_/rooms.py'

lite0 = dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0])

model = dict(
    type='DepthEstimator',
    data_preprocessor=dict(
        type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0, seg_pad_val=0, size_divisor=32,
        test_cfg=dict(size_divisor=32), **lite0),
    backbone=dict(
        type='frozenmm.FrozenBackbone',
        tower=dict(
            type='frozenmm.CachedTower',
            folder='cache/features/lite0_rooms',
            store='fp16',
            tower=dict(type='frozenmm.EfficientNetLiteTower')),
        out_indices=(1, 2, 3, 4)),
    decode_head=dict(
        type='frozenmm.LightDepthHead', in_channels=[24, 40, 112, 320],
        loss_decode=dict(type='frozenmm.AffineDepthLoss')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3),
    dict(
        type='frozenmm.StoredVariants',  # so that frozen features are computed once for each
        variants=3,
        transforms=[
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion', brightness_delta=40, contrast_range=(0.6, 1.4), hue_delta=20)]),
    dict(type='PackSegInputs')]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='frozenmm.GeneratedRooms', data_root='data/rooms', split='train', pipeline=train_pipeline))
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=1e-2), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=40, end=500, eta_min=2e-5)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=500, val_interval=500)

default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100, max_keep_ckpts=2))
