"""COCO-20i fold 0 on coco_mini (138 COCO images): seen classes in training, all classes at test, unseen ones apart.

Up to three classes that the image shows and two that it does not are asked for at once, so that a name has to be read.
"""
fold = 0
unseen = list(range(fold + 1, 81, 4))
data_root = 'data/coco_mini'
meta_keys = ('img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip',
             'flip_direction', 'class_names', 'class_ids')
train_pipeline = [
    dict(
        type='frozenmm.StoredVariants',  # so that frozen features are computed once for each
        variants=8,
        transforms=[
            dict(type='LoadImageFromFile'),
            dict(type='frozenmm.LoadEpisodeMap'),
            dict(type='RandomResize', scale=(256, 256), ratio_range=(1.0, 1.5), keep_ratio=False),
            dict(type='RandomCrop', crop_size=(256, 256)),
            dict(type='RandomFlip', prob=0.5)
        ]),
    dict(type='PackSegInputs', meta_keys=meta_keys)
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=False),
    dict(type='frozenmm.LoadEpisodeMap'),
    dict(type='PackSegInputs', meta_keys=meta_keys)
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.COCO20iDataset',
        fold=fold,
        split='train',
        data_root=data_root,
        annotations='annotations/panoptic_train.json',
        panoptic_folder='panoptic_train',
        data_prefix=dict(img_path='images/train', seg_map_path='semantic/train'),
        classes_per_episode=3,
        negatives=2,
        min_pixels=200,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.COCO20iDataset',
        fold=fold,
        split='all',
        data_root=data_root,
        annotations='annotations/panoptic_val.json',
        panoptic_folder='panoptic_val',
        data_prefix=dict(img_path='images/val', seg_map_path='semantic/val'),
        classes_per_episode=1,
        min_pixels=200,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='frozenmm.EpisodicIoUMetric', num_classes=81, unseen=unseen)
test_evaluator = val_evaluator
