"""A model of mmseg on the maps of a frozen EfficientNet-Lite0, on CamVid; everything but the head."""
_base_ = ['../../plain_mask/_base_/runtime.py', '../../_base_/datasets/camvid.py']

default_scope = 'mmseg'
randomness = dict(seed=0)
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=11,
        size={{_base_.crop_size}},
        test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='frozenmm.FrozenBackbone',
        tower=dict(
            type='frozenmm.CachedTower',
            folder='cache/lite0_camvid',
            store='bf16',
            tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res2', 'res3', 'res4', 'res5']))),
    decode_head=dict(
        in_channels=[24, 40, 112, 320],
        in_index=[0, 1, 2, 3],
        num_classes=11,
        ignore_index=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    test_cfg=dict(mode='whole'))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1, norm_type=2))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
