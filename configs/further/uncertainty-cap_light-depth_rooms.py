"""How sure the shipped demonstration depth network is: a small BayesCap on it, trained on generated rooms.

Metric: AUSE, rank correlation and calibration on test rooms, in benchmarks/results/uncertainty_cap.json.
Command: python tools/train.py configs/further/uncertainty-cap_light-depth_rooms.py
Source: BayesCap (ECCV 2022), with fewer channels and blocks; residual='product' is what its code computes.
"""
_base_ = '../frozen_recon/_base_/rooms.py'

model = dict(
    type='frozenmm.CappedEstimator',
    base=dict(type='frozenmm.FrozenDepthEstimator', network=dict(type='frozenmm.LightDepth')),
    cap=dict(channels=16, num_blocks=4, kernel=5),
    loss=dict(residual='power', fit_weight=1.0),
    stride=4)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.GeneratedRooms',
        data_root='data/rooms',
        split='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3),
            dict(type='PackSegInputs')]))
val_evaluator = dict(_delete_=True, type='frozenmm.UncertaintyMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=300, val_interval=300)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=300))
