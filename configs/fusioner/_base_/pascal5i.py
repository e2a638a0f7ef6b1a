"""PASCAL-5i, fold 0: episodes of one seen class in training, of one unseen class at test.

Another fold: `train_dataloader.dataset.fold`, and `val_dataloader` and `test_dataloader` likewise.
"""
meta_keys = ('img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip',
             'flip_direction', 'class_names', 'class_ids')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='frozenmm.LoadEpisodeMap'),
    dict(type='RandomResize', scale=(224, 224), ratio_range=(1.0, 1.5), keep_ratio=False),
    dict(type='RandomCrop', crop_size=(224, 224)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs', meta_keys=meta_keys)
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='frozenmm.LoadEpisodeMap'),
    dict(type='PackSegInputs', meta_keys=meta_keys)
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.PASCAL5iDataset',
        fold=0,
        split='train',
        data_root='data/VOCdevkit/VOC2012',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.PASCAL5iDataset',
        fold=0,
        split='test',
        data_root='data/VOCdevkit/VOC2012',
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='frozenmm.EpisodicIoUMetric', num_classes=21)
test_evaluator = val_evaluator
