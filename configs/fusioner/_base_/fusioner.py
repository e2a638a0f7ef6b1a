"""Fusioner with CLIP ViT-L/14 on both sides, and its training schedule: everything but data.

Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022). Unlike
the released code, it takes CLIP's own normalisation, divides the loss by the number of classes, and has one AdamW for
fusion and decoder. `optim_wrapper.paramwise_cfg = dict(constant=['decoder'])` keeps the decoder's rate as there,
`model.decode_head.loss_decode.compat = True` takes its loss.
"""
default_scope = 'mmseg'
custom_imports = dict(imports=['frozenmm'])

model = dict(
    type='frozenmm.FusionerSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(224, 224)),
    backbone=dict(
        type='frozenmm.FrozenBackbone',
        tower=dict(type='frozenmm.CLIPTower', model='ViT-L/14', patch_output='projected')),
    decode_head=dict(
        type='frozenmm.FusionerHead',
        in_channels=768,
        text_tower=dict(type='frozenmm.CLIPTextTower', model='ViT-L/14'),
        channels=512,
        fusion=dict(num_layers=12, num_heads=8),
        templates='fusioner32',
        masks=dict(mode='joint'),
        decoder=dict(type='frozenmm.FusionerDecoder'),
        loss_decode=dict(type='frozenmm.FusionerBCELoss', compat=False)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

# 510 epochs of PASCAL-5i fold 0 at batch 32, the span of the official schedules; 10 epochs of warm-up
train_cfg = dict(type='IterBasedTrainLoop', max_iters=201960, val_interval=3960)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='frozenmm.FusionOptimWrapperConstructor',
    paramwise_cfg=dict(constant=[]),
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01))
custom_hooks = [dict(type='frozenmm.WarmupCosineHook', lr=(1e-3, 2e-6), weight_decay=(0.01, 0.4), warmup=3960)]

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3960, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'))
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
