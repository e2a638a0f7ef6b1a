"""COCO panoptic 2017: data with large-scale jitter, and metrics on the 5000 pictures of the validation set.

Prepare: python tools/prepare_data.py coco --splits train val
"""
data_root = 'data/coco/'
vocabulary = 'coco_panoptic_133'
train_vocabulary = 'coco_panoptic_133'
postprocess = dict(tasks=('semantic', 'panoptic', 'instance'))

image_size = (1024, 1024)

train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=image_size, crop_type='absolute', recompute_bbox=True, allow_negative_crop=True),
    # as officially, small pictures are set on a gray canvas that counts as image
    dict(type='Pad', size=image_size, pad_val=dict(img=(128, 128, 128), masks=0, seg=255)),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.CocoPanoptic',
        data_root=data_root,
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(img='train2017/', seg='annotations/panoptic_train2017/'),
        vocabulary=train_vocabulary,
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.CocoPanoptic',
        data_root=data_root,
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(img='val2017/', seg='annotations/panoptic_val2017/'),
        vocabulary=vocabulary,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'annotations/panoptic_val2017.json',
         seg_prefix=data_root + 'annotations/panoptic_val2017/', vocabulary=vocabulary,
         train_vocabulary=train_vocabulary),
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=train_vocabulary),
    dict(type='frozenmm.SplitCocoMetric', ann_file=data_root + 'annotations/instances_val2017.json', metric='segm',
         vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_evaluator = val_evaluator
