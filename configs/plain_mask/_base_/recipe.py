"""The published recipe on COCO: 12 epochs of batches of 16 (88 716 iterations), fading masked attention. No data."""
max_iters = 88716

# everything that is trained decays
optim_wrapper = dict(
    type='frozenmm.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=6000),
    dict(type='CosineAnnealingLR', eta_min=1e-9, by_epoch=False, begin=6000, end=max_iters)
]
custom_hooks = [
    dict(type='frozenmm.MaskAnnealingHook', start=[0, 23651, 32520, 41389, 50258, 59128],
         end=[3000, 38433, 47302, 56171, 65040, 73910])
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=7393)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
