"""FC-CLIP on embedded networks, trained on 100 generated scenes with six of their eight objects; no download at all.

Coin and retina are held out: their pixels are void in training, and they are evaluated as unseen.

Metric: panoptic quality and mIoU on 200 scenes whose grounds and lights never occur in training, seen and unseen.
Command: python tools/train.py configs/fc_clip/fc_clip_conse-lite0_scenes.py
Source: Yu et al., NeurIPS 2023, sizes of our own; a demonstration, not a benchmark.
"""
_base_ = '_base_/fc_clip_conse-lite0.py'

data_root = 'data/scenes/'
vocabulary = dict(
    name='scenes',
    classes=['cat', 'cup, coffee cup', 'shuttle, space shuttle', 'face, human face', 'motorcycle', 'retina', 'coin',
             'horse', 'ground, background'],
    stuff_classes=['ground, background'])
train_vocabulary = dict(of=vocabulary, without=['retina', 'coin'])

model = dict(classifier=dict(train_vocabulary=train_vocabulary, vocabulary=vocabulary))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(type='frozenmm.StoredVariants', variants=8, transforms=[
        dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion')]),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.GeneratedScenesPanoptic',
        data_root=data_root,
        split='train',
        vocabulary=train_vocabulary,
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.GeneratedScenesPanoptic',
        data_root=data_root,
        split='val',
        vocabulary=vocabulary,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'annotations/panoptic_val.json',
         seg_prefix=data_root + 'panoptic_val/', vocabulary=vocabulary, train_vocabulary=train_vocabulary),
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_evaluator = val_evaluator
