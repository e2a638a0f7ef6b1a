"""FC-CLIP on embedded networks, trained on 70 COCO images with all 133 classes.

Metric: panoptic quality, mIoU and mask AP on 68 validation images, all 133 classes.
Command: python tools/train.py configs/fc_clip/fc_clip_conse-lite0_coco-mini.py
Source: Yu et al., NeurIPS 2023, sizes of our own; a demonstration, not a benchmark.
"""
_base_ = '_base_/fc_clip_conse-lite0.py'

data_root = 'data/coco_mini/'
vocabulary = 'coco_panoptic_133'
train_vocabulary = dict(of=vocabulary, without=[])
side = 256

# objects stay objects when a few words of one's own are asked for
model = dict(classifier=dict(train_vocabulary=train_vocabulary, vocabulary=vocabulary, void_against='training'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='frozenmm.StoredVariants', variants=16, transforms=[
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='RandomResize', scale=(320, 320), ratio_range=(0.7, 1.5), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(side, side), crop_type='absolute', recompute_bbox=True,
             allow_negative_crop=True)]),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.CocoPanoptic',
        data_root=data_root,
        ann_file='annotations/panoptic_train.json',
        data_prefix=dict(img='images/train/', seg='panoptic_train/'),
        vocabulary=train_vocabulary,
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.CocoPanoptic',
        data_root=data_root,
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='images/val/', seg='panoptic_val/'),
        vocabulary=vocabulary,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'annotations/panoptic_val.json',
         seg_prefix=data_root + 'panoptic_val/', vocabulary=vocabulary, train_vocabulary=train_vocabulary),
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=train_vocabulary),
    dict(type='frozenmm.SplitCocoMetric', ann_file=data_root + 'annotations/instances_val.json', metric='segm',
         vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_evaluator = val_evaluator
