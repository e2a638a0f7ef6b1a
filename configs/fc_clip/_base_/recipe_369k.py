"""The published recipe: AdamW, 368 750 iterations of 16 pictures. No model, no data."""
# norms and embeddings are not decayed; the pixel decoder's level encoding and the logit scale are, as officially
optim_wrapper = dict(
    type='frozenmm.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(
            query_feat=dict(decay_mult=0.0), query_embed=dict(decay_mult=0.0), level_embed=dict(decay_mult=0.0),
            void_embedding=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.01, norm_type=2))
max_iters = 368750
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[327778, 355092], gamma=0.1)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
