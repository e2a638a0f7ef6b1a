"""ADE20K with 847 classes: semantic annotations of 2000 pictures, short side at most 512.

Prepare: python tools/prepare_data.py ade20k_full
"""
data_root = 'data/ADE20K_2021_17_01/'
# the classes to predict, and those of training, which decide what is seen
vocabulary = 'ade20k_847'
train_vocabulary = 'coco_panoptic_133'
postprocess = dict(tasks=('semantic', ))

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
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
        data_prefix=dict(img='images_512/val/', seg='labels_847/val/'),
        vocabulary=vocabulary,
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_cfg = dict(type='TestLoop')
