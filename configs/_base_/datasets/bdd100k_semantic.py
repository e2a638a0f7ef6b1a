"""BDD100K: semantic annotations of 1000 pictures, the 19 classes of Cityscapes.

Prepare: python tools/prepare_data.py bdd100k
"""
data_root = 'data/bdd100k/'
# the classes to predict, and those of training, which decide what is seen
vocabulary = 'cityscapes_19'
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
        data_prefix=dict(img='images/10k/val/', seg='labels/sem_seg/masks/val/'),
        vocabulary=vocabulary,
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_cfg = dict(type='TestLoop')
