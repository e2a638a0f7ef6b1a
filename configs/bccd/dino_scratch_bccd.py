"""A small DINO with its own backbone, trained from scratch on BCCD's 205 pictures of blood cells.

The schedule, and what of the model depends on the data; the other configs here state their difference. Non-maximum
suppression at test time takes the place of what one-to-one matching has not yet learned in so few iterations
(docs/enhancer.md).
Metric: COCO box AP on 87 validation pictures: see README.md beside this file.
Command: python tools/train.py configs/bccd/dino_scratch_bccd.py --cfg-options data_root=path/to/bccd
Source: DINO (Zhang et al., 2023), sizes of our own. Data: BCCD (MIT), in Pascal VOC layout.
"""
_base_ = ['../_base_/models/dino_small.py', '../_base_/datasets/bccd.py']

default_scope = 'mmdet'
custom_imports = dict(imports=['frozenmm'])
randomness = dict(seed=0)

iterations = 600

model = dict(
    num_queries=100,
    neck=dict(
        type='FPN', in_channels=[64, 128, 256], out_channels=128, num_outs=3,
        norm_cfg=dict(type='GN', num_groups=32)),
    bbox_head=dict(
        num_classes=3, loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=60)),
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
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100, max_keep_ckpts=2, save_param_scheduler=False),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=20)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
