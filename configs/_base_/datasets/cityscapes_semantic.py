"""Cityscapes: semantic annotations of 500 pictures.

Prepare: python tools/prepare_data.py cityscapes
"""
_base_ = '../semantic_maps.py'

data_root = 'data/cityscapes/'
vocabulary = 'cityscapes_19'

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(2560, 1024), keep_ratio=True),
    dict(type='frozenmm.LoadLabelMap'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img='leftImg8bit/val/', seg='labels_19/val/'),
        img_suffix='_leftImg8bit.png',
        vocabulary=vocabulary,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
