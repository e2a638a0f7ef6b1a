"""COCO panoptic 2017 in squares of 640 pixels, as PMT trains and is evaluated.

Prepare: python tools/prepare_data.py coco --splits train val
"""
_base_ = ['../../_base_/datasets/coco_panoptic.py', '../../fc_clip/_base_/runtime.py']

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=(640, 640), ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(640, 640), crop_type='absolute', recompute_bbox=True),
    dict(type='Pad', size=(640, 640), pad_val=dict(img=0, masks=0, seg=255)),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='Resize', scale=(640, 640), keep_ratio=True, backend='pillow'),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=_base_.data_root + 'annotations/panoptic_val2017.json',
         seg_prefix=_base_.data_root + 'annotations/panoptic_val2017/', vocabulary=_base_.vocabulary,
         train_vocabulary=_base_.train_vocabulary)
]
test_evaluator = val_evaluator
