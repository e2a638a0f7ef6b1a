"""Mapillary Vistas, 65 classes of version 1.2: panoptic annotations of 2000 pictures.

Prepare: python tools/prepare_data.py mapillary_vistas
"""
_base_ = '../panoptic_maps.py'

data_root = 'data/mapillary_vistas/'
vocabulary = 'mapillary_vistas_65'
postprocess = dict(tasks=('semantic', 'panoptic'))

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(2560, 1024), keep_ratio=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='validation/panoptic/panoptic_2018.json',
        data_prefix=dict(img='validation/images/', seg='validation/panoptic/'),
        vocabulary=vocabulary,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'validation/panoptic/panoptic_2018.json',
         seg_prefix=data_root + 'validation/panoptic/', vocabulary=vocabulary,
         train_vocabulary=_base_.train_vocabulary),
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
