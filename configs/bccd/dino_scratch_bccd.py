"""A small DINO with its own backbone, trained from scratch on BCCD's 205 pictures of blood cells.

The whole model and schedule; the other configs here state only their difference. Non-maximum suppression at test time
takes the place of what one-to-one matching has not yet learned in so few iterations (docs/enhancer.md).
Metric: COCO box AP on 87 validation pictures: see README.md beside this file.
Command: python tools/train.py configs/bccd/dino_scratch_bccd.py --cfg-options data_root=path/to/bccd
Source: DINO (Zhang et al., 2023), sizes of our own. Data: BCCD (MIT), in Pascal VOC layout.
"""
_base_ = ['../_base_/datasets/bccd.py']

default_scope = 'mmdet'
custom_imports = dict(imports=['frozenmm'])
randomness = dict(seed=0)

iterations = 600
width = 128

model = dict(
    type='frozenmm.EnhancedDINO',
    num_queries=100,
    with_box_refine=True,
    as_two_stage=True,
    num_feature_levels=3,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='ResNet', depth=18, base_channels=32, num_stages=4, out_indices=(1, 2, 3), norm_cfg=dict(type='BN'),
        norm_eval=False, frozen_stages=-1),
    neck=dict(
        type='FPN', in_channels=[64, 128, 256], out_channels=width, num_outs=3,
        norm_cfg=dict(type='GN', num_groups=32)),
    encoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=width, num_levels=3, num_heads=8, num_points=4, dropout=0.0),
            ffn_cfg=dict(embed_dims=width, feedforward_channels=256, ffn_drop=0.0))),
    decoder=dict(
        num_layers=3,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=width, num_heads=8, dropout=0.0),
            cross_attn_cfg=dict(embed_dims=width, num_levels=3, num_heads=8, num_points=4, dropout=0.0),
            ffn_cfg=dict(embed_dims=width, feedforward_channels=256, ffn_drop=0.0)),
        post_norm_cfg=None),
    positional_encoding=dict(num_feats=width // 2, normalize=True, offset=0.0, temperature=20),
    bbox_head=dict(
        type='DINOHead', num_classes=3, embed_dims=width, sync_cls_avg_factor=True,
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    dn_cfg=dict(
        label_noise_scale=0.5, box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=60)),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0)
            ])),
    test_cfg=dict(max_per_img=100, nms=dict(type='nms', iou_threshold=0.6)))

train_cfg = dict(type='frozenmm.BudgetTrainLoop', max_iters=iterations, val_interval=100000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1, norm_type=2))
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', iterations=iterations),
]

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100, max_keep_ckpts=1, save_param_scheduler=False),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=20)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
