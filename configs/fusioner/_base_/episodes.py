"""What all data of Fusioner share: loading, the official augmentation, loaders. A data set's file states the rest.

The augmentation is the released code's, with one difference: what a warp brings in from outside is ignored, officially
it is background (`border=0`). Its normalisation is not CLIP's; to have it, set `model.data_preprocessor`: PASCAL-5i
mean [116.127, 109.599, 100.8525], std [30.1155, 30.3195, 34.119]; COCO-20i mean [118.575, 111.1035, 101.3115],
std [29.376, 29.4015, 34.476].
"""
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='frozenmm.LoadEpisodeMap'),
    dict(type='frozenmm.FusionerAugmentation', size=224, colour=0.5, degrees=20),
    dict(type='frozenmm.PackEpisode')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False, interpolation='area'),
    dict(type='frozenmm.LoadEpisodeMap'),
    dict(type='frozenmm.PackEpisode')
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True, pipeline=test_pipeline))
val_evaluator = dict(type='frozenmm.EpisodicIoUMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
