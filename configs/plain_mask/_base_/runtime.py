"""Loops, logging and hooks of training by iterations on a laptop. No model, no data."""
custom_imports = dict(imports=['frozenmm'])

# the budget ends the training; the numbers are no schedule
train_cfg = dict(type='frozenmm.BudgetTrainLoop', max_iters=100000, val_interval=100000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=1, save_param_scheduler=False),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=20)
log_level = 'INFO'
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
load_from = None
resume = False
