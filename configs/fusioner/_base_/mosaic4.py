"""Training on FSS-1000, test on Mosaic-4: four test images of four classes on one canvas, four names at once.

The construction is ours (`frozenmm.datasets.mosaic`); the paper's was not published, so results do not compare.
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
        type='frozenmm.FSS1000Dataset',
        split='train',
        data_root='data/fewshot_data',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.Mosaic4Dataset',
        source=dict(type='frozenmm.FSS1000Dataset', split='test', data_root='data/fewshot_data'),
        data_root='data/mosaic4',
        count=1000,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='frozenmm.EpisodicIoUMetric', num_classes=1001)
test_evaluator = val_evaluator
