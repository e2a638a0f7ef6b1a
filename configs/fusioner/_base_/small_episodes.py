"""Episodes for a CPU: few images, a fixed number of variants of each, several names at once.

Up to three classes that an image shows and two that it does not are asked for, so that a name has to be read.
"""
_base_ = 'episodes.py'

train_pipeline = [
    dict(
        type='frozenmm.StoredVariants',  # so that frozen features are computed once for each
        variants=8,
        transforms=[
            dict(type='LoadImageFromFile'),
            dict(type='frozenmm.LoadEpisodeMap'),
            dict(type='frozenmm.FusionerAugmentation', size=320, colour=0.2, degrees=10)
        ]),
    dict(type='frozenmm.PackEpisode')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=False, interpolation='area'),
    dict(type='frozenmm.LoadEpisodeMap'),
    dict(type='frozenmm.PackEpisode')
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(asking=dict(classes_per_episode=3, negatives=2), pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(asking=dict(classes_per_episode=1), pipeline=test_pipeline))
test_dataloader = val_dataloader
