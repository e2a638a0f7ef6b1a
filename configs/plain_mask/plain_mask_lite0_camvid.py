"""A plain mask decoder on the maps of a frozen EfficientNet-Lite0, trained on CamVid's 367 pictures with 11 classes.

Metric: mIoU 67.2 on 101 validation pictures, seed 0, after 573 CPU seconds of training (features cached on the way).
Command: python tools/train.py configs/plain_mask/plain_mask_lite0_camvid.py
Source: PMT (arXiv 2603.25398), sizes of our own; ten minutes of one core. Data free for research.
"""
_base_ = ['_base_/runtime.py', '../_base_/datasets/camvid.py']

default_scope = 'mmseg'
randomness = dict(seed=0)
iterations = 600

model = dict(
    type='frozenmm.PlainMaskSemanticSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size={{_base_.crop_size}},
        test_cfg=dict(size_divisor=32)),
    model=dict(
        type='frozenmm.PlainMaskSegmentor',
        tower=dict(
            type='frozenmm.CachedTower',
            folder='cache/lite0_camvid',
            store='bf16',
            tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res2', 'res3', 'res4', 'res5'])),
        taps=['res2', 'res3', 'res4', 'res5'],
        stride=16,
        classifier=dict(vocabulary={{_base_.classes}}),
        # one query per class learns in few iterations; masked attention would cost a prediction per block
        mask_generator=dict(channels=96, num_heads=3, num_queries=11, num_blocks=2, hidden_channels=192,
                            masked_attention=False),
        criterion=dict(num_points=2048, matching='class'),
        postprocess=dict(tasks=('semantic', ))),
    test_cfg=dict(mode='whole'))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=0.1, norm_type=2))
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', iterations=iterations),
]
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
