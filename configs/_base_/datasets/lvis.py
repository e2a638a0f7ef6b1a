"""LVIS v1: instance annotations of 19809 pictures, 1203 classes.

The preparation makes the vocabulary out of the annotation file.
Prepare: python tools/prepare_data.py lvis
"""
data_root = 'data/lvis/'
# the classes to predict, and those of training, which decide what is seen
vocabulary = 'data/lvis/vocabulary.json'
train_vocabulary = 'coco_panoptic_133'
postprocess = dict(tasks=('instance', ))

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.LVISImages',
        data_root=data_root,
        ann_file='lvis_v1_val.json',
        data_prefix=dict(img='../coco/'),
        vocabulary=vocabulary,
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.LVISMaskAP', ann_file=data_root + 'lvis_v1_val.json', vocabulary=vocabulary,
         train_vocabulary=train_vocabulary)
]
test_cfg = dict(type='TestLoop')
