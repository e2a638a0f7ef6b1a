"""The demonstration model that stands in for SAM: masks from points and boxes, trained on generated scenes.

A frozen EfficientNet-Lite0 and 0.33 M trained parameters; half of the scenes show objects cut from scikit-image's
photographs, half random shapes. It knows neither classes nor real scenes and is no replacement for SAM's weights.

Metric: IoU of the masks that points and boxes get on 100 scenes with grounds and lights that never occur in training.
Command: python tools/train.py configs/frozen_seg/demo_sam_lite0_scenes.py
Source: Kirillov et al., arXiv 2304.02643; network and sizes of our own.
"""
default_scope = 'mmengine'
custom_imports = dict(imports=['frozenmm'])

model = dict(
    type='frozenmm.DemoSAM',
    # the scenes are the same in every epoch, so the frozen features of each are computed once (0.4 MB)
    tower=dict(
        type='frozenmm.RememberingTower',
        megabytes=600,
        tower=dict(
            type='frozenmm.EfficientNetLiteTower', resize_mode='none', out_maps=['res2', 'res3', 'res4', 'res5'])),
    head=dict(channels=64, mask_channels=32, neck_depth=2, decoder_depth=3, heads=8),
    prompts=24)

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='frozenmm.PromptScenes', split='train', count=700, size=192))
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='frozenmm.PromptScenes', split='val', count=100, size=192))
test_dataloader = val_dataloader
val_evaluator = dict(type='frozenmm.PromptedIoU')
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0))
train_cfg = dict(type='frozenmm.BudgetTrainLoop', max_iters=1600, val_interval=1600)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [dict(type='frozenmm.TimeBudgetHook', iterations=1600)]

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=2, save_param_scheduler=False),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=20)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
