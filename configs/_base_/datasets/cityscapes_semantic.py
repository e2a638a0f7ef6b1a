"""Cityscapes: semantic annotations of 500 pictures.

Prepare: python tools/prepare_data.py cityscapes
"""
data_root = 'data/cityscapes/'
# the classes to predict, and those of training, which decide what is seen
vocabulary = 'cityscapes_19'
train_vocabulary = 'coco_panoptic_133'
postprocess = dict(tasks=('semantic', ))

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(2560, 1024), keep_ratio=True),
    dict(type='frozenmm.LoadLabelMap'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.SemanticMaps',
        data_root=data_root,
        data_prefix=dict(img='leftImg8bit/val/', seg='labels_19/val/'),
        img_suffix='_leftImg8bit.png',
        vocabulary=vocabulary,
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_cfg = dict(type='TestLoop')
