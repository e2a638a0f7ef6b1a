"""GFL on frozen EfficientNet-Lite0: blood cells in BCCD's 205 training pictures, seven minutes of one core.

Metric: COCO box AP 54.8, AP50 88.7 on 87 validation pictures, seed 0, after 386 CPU seconds (features kept in memory).
Command: python tools/train.py configs/generic/gfl_frozen-lite0_bccd.py --cfg-options data_root=path/to/bccd
Source: Li et al., "Generalized Focal Loss" (2020), sizes of our own. Data: BCCD (MIT), in Pascal VOC layout.
"""
_base_ = ['../_base_/datasets/bccd.py']

default_scope = 'mmdet'
custom_imports = dict(imports=['frozenmm'])
randomness = dict(seed=0)

iterations = 600
width = 96

model = dict(
    type='GFL',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='frozenmm.FrozenBackbone',
        tower=dict(
            type='frozenmm.RememberingTower',
            tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res3', 'res4', 'res5']))),
    neck=dict(
        type='FPN', in_channels=[40, 112, 320], out_channels=width, num_outs=3,
        norm_cfg=dict(type='GN', num_groups=16)),
    bbox_head=dict(
        type='GFLHead',
        num_classes=3,
        in_channels=width,
        feat_channels=width,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16),
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1,
                              strides=[8, 16, 32]),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        reg_max=8),
    train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=500, min_bbox_size=0, score_thr=0.02, nms=dict(type='nms', iou_threshold=0.6),
                  max_per_img=100))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5, norm_type=2),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=iterations, T_max=iterations - 100,
         eta_min_ratio=0.02)
]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=20)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
