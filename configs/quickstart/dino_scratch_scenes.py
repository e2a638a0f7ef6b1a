"""Quickstart, row (a): a small DINO with its own backbone, trained from scratch on 100 generated scenes.

Data and schedule of the quickstart, and what of the model depends on them; the other rows state their difference.
Metric: COCO box AP on 200 scenes whose grounds and lights never occur in training.
Command: python tools/train.py configs/quickstart/dino_scratch_scenes.py
Source: DINO (Zhang et al., 2023), sizes of our own.
"""
_base_ = ['../_base_/models/dino_small.py']

default_scope = 'mmdet'
custom_imports = dict(imports=['frozenmm'])

data_root = 'data/scenes'
minutes = 5

model = dict(
    num_queries=40,
    neck=dict(
        type='ChannelMapper', in_channels=[64, 128, 256], kernel_size=1, out_channels=128, act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32), num_outs=3),
    bbox_head=dict(
        num_classes=8, loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=40))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='frozenmm.StoredVariants',
        variants=8,
        transforms=[
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='Resize', scale=(160, 160), keep_ratio=True),
        ]),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
                                          'flip_direction', 'variant')),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.GeneratedScenes', data_root=data_root, split='train', filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='frozenmm.GeneratedScenes', data_root=data_root, split='val', test_mode=True,
                 pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=f'{data_root}/annotations/instances_val.json', metric='bbox')
test_evaluator = val_evaluator

train_cfg = dict(type='frozenmm.BudgetTrainLoop', max_iters=100000, val_interval=100000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-4, weight_decay=1e-4, fused=True),
    clip_grad=dict(max_norm=0.1, norm_type=2))
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', minutes=minutes),
]

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=50, max_keep_ckpts=2, save_param_scheduler=False),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=20)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0)
