"""FC-CLIP on the embedded networks: EfficientNet-Lite0, MiniLM and ConSE between them; a small decoder. No data.

Sizes are for a laptop: 0.45 M trained parameters, images of 320 pixels, five minutes of one core.
"""
default_scope = 'mmdet'
custom_imports = dict(imports=['frozenmm'])

width = 64
side = 256
iterations = 1500

model = dict(
    type='frozenmm.FCCLIP',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        pad_mask=True,
        pad_seg=True,
        seg_pad_value=255,
        # training batches of one size: the same crop comes back with the same padding, so the tower remembers it
        batch_augments=[dict(type='BatchFixedSizePad', size=(side, side), pad_mask=True, pad_seg=True)]),
    tower=dict(
        type='frozenmm.RememberingTower',
        tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res2', 'res3', 'res4', 'res5'])),
    frozen_head=dict(type='frozenmm.ConSE'),
    # a cell of res5 is 32 pixels wide: at 320 pixels, 39 % of coco_mini's segments contain none
    frozen_pool='area',
    mask_padding=True,
    mask_generator=dict(
        pixel_decoder=dict(
            channels=width, mask_channels=width, num_layers=2, num_heads=8, num_points=4, feedforward_channels=256),
        decoder=dict(
            in_channels=width, channels=width, mask_channels=width, num_queries=50, num_layers=3, num_heads=8,
            feedforward_channels=256)),
    classifier=dict(
        embed_channels=384,
        channels=width,
        text_tower=dict(type='frozenmm.MiniLMTextTower'),
        # ConSE's vectors are made of plain class names
        templates='none',
        ensemble=dict(
            alpha=0.4,
            beta=0.8,
            # temperature 10: best likelihood of the training set's segments among 5 to 40, for vectors of ConSE
            log_scale=2.3026,
            # 133 flat class probabilities are all below void's; the panoptic result would be empty
            sharpness=3.0)),
    criterion=dict(num_points=512),
    postprocess=dict(tasks=('semantic', 'panoptic', 'instance'), score_threshold=0.0, overlap_threshold=0.8, top_k=50))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(
            query_feat=dict(decay_mult=0.0), query_embed=dict(decay_mult=0.0), level_embed=dict(decay_mult=0.0),
            void_embedding=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.01, norm_type=2))
# the budget ends the training; the numbers are no schedule
train_cfg = dict(type='frozenmm.BudgetTrainLoop', max_iters=100000, val_interval=100000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', iterations=iterations),
]

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=2, save_param_scheduler=False),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=20)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
