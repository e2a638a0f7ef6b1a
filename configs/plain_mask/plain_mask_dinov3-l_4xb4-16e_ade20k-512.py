"""PMT: plain mask decoder on a frozen DINOv3-L, ADE20K semantic at 512 pixels, as an mmseg segmentor.

Metric: published, mIoU 58.5 (not measured here yet).
Command: python tools/train.py configs/plain_mask/plain_mask_dinov3-l_4xb4-16e_ade20k-512.py
Source: PMT (arXiv 2603.25398). DINOv3 weights have their own licence, not Apache-2.0.
"""
_base_ = ['_base_/plain_mask.py', '_base_/recipe.py', '../fc_clip/_base_/runtime.py']

default_scope = 'mmseg'
size = 512
max_iters = 20208
model = dict(
    _delete_=True,
    type='frozenmm.PlainMaskSemanticSegmentor',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(size, size)),
    model=dict(
        type='frozenmm.PlainMaskSegmentor',
        tower=dict(type='frozenmm.DINOv3Tower', model='dinov3_vitl16'),
        taps=[5, 11, 17, 23],
        classifier=dict(vocabulary='ade20k_150'),
        mask_generator=dict(num_queries=100, num_blocks=6, compat=True),
        postprocess=dict(tasks=('semantic', ))),
    test_cfg=dict(mode='slide', window='spread', crop_size=(size, size), stride=(size, size)))

data_root = 'data/ADEChallengeData2016/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PhotoMetricDistortion', brightness_delta=32, contrast_range=(0.5, 1.5), saturation_range=(0.5, 1.5),
         hue_delta=9),  # OpenCV halves degrees
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=(size, size), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(size, size)),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    # the shorter side to 512, whatever the longer one
    dict(type='Resize', scale=(100000, size), keep_ratio=True, backend='pillow'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ADE20KDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=6000),
    dict(type='CosineAnnealingLR', eta_min=1e-9, by_epoch=False, begin=6000, end=max_iters)
]
custom_hooks = [
    dict(type='frozenmm.MaskAnnealingHook', start=[0, 5384, 7403, 9422, 11442, 13461],
         end=[3000, 8749, 10769, 12788, 14807, 16826])
]
train_cfg = dict(max_iters=max_iters, val_interval=1263)

default_hooks = dict(checkpoint=dict(interval=1263), visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer')
