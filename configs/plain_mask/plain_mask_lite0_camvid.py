"""A plain mask decoder on the maps of a frozen EfficientNet-Lite0, trained on CamVid's 367 pictures with 11 classes.

Metric: mIoU 67.2 on 101 validation pictures, seed 0, after 573 CPU seconds of training (features cached on the way).
Command: python tools/train.py configs/plain_mask/plain_mask_lite0_camvid.py
Source: PMT (arXiv 2603.25398), sizes of our own; ten minutes of one core. Data free for research.
"""
_base_ = '_base_/runtime.py'

default_scope = 'mmseg'
randomness = dict(seed=0)
classes = ('Sky', 'Building', 'Pole', 'Road', 'Pavement', 'Tree', 'SignSymbol', 'Fence', 'Car', 'Pedestrian',
           'Bicyclist')
unlabelled = 11
crop_size = (352, 480)
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
        size=crop_size,
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
        classifier=dict(vocabulary=list(classes)),
        # one query per class learns in few iterations; masked attention would cost a prediction per block
        mask_generator=dict(channels=96, num_heads=3, num_queries=len(classes), num_blocks=2, hidden_channels=192,
                            masked_attention=False),
        criterion=dict(num_points=2048, matching='class'),
        postprocess=dict(tasks=('semantic', ))),
    test_cfg=dict(mode='whole'))

data_root = 'data/camvid/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='frozenmm.StoredVariants', variants=4, transforms=[
        dict(type='RandomResize', scale=(480, 360), ratio_range=(0.8, 1.6), keep_ratio=True),
        dict(type='RandomCrop', crop_size=crop_size),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion')]),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]
dataset = dict(type='BaseSegDataset', data_root=data_root, metainfo=dict(classes=classes), img_suffix='.jpg',
               seg_map_suffix='.png', ignore_index=unlabelled)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'], ignore_index=unlabelled)
test_evaluator = val_evaluator

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
