"""Generated scenes: six classes in training, two others that it never names; all eight at test, unseen ones apart."""
unseen = ('cup', 'horse')
unseen_ids = (2, 8)
data_root = 'data/scenes'
meta_keys = ('img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip',
             'flip_direction', 'class_names', 'class_ids')
train_pipeline = [
    dict(
        type='frozenmm.StoredVariants',  # so that frozen features are computed once for each
        variants=8,
        transforms=[
            dict(type='LoadImageFromFile'),
            dict(type='frozenmm.LoadEpisodeMap'),
            dict(type='RandomResize', scale=(160, 160), ratio_range=(1.0, 1.5), keep_ratio=False),
            dict(type='RandomCrop', crop_size=(160, 160)),
            dict(type='RandomFlip', prob=0.5)
        ]),
    dict(type='PackSegInputs', meta_keys=meta_keys)
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 160), keep_ratio=False),
    dict(type='frozenmm.LoadEpisodeMap'),
    dict(type='PackSegInputs', meta_keys=meta_keys)
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.SceneEpisodes',
        data_root=data_root,
        split='train',
        unseen=unseen,
        ask='seen',
        classes_per_episode=3,
        negatives=2,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.SceneEpisodes',
        data_root=data_root,
        split='val',
        unseen=unseen,
        ask='all',
        classes_per_episode=1,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='frozenmm.EpisodicIoUMetric', num_classes=9, unseen=unseen_ids)
test_evaluator = val_evaluator
