"""BDD100K: panoptic annotations of 1000 pictures, 40 classes.

Prepare: python tools/prepare_data.py bdd100k
"""
data_root = 'data/bdd100k/'
# the classes to predict, and those of training, which decide what is seen
vocabulary = 'bdd100k_40'
train_vocabulary = 'coco_panoptic_133'
postprocess = dict(tasks=('panoptic', ), score_threshold=0.4)

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.CocoPanoptic',
        data_root=data_root,
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='images/10k/val/', seg='panoptic_val/'),
        vocabulary=vocabulary,
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'annotations/panoptic_val.json',
         seg_prefix=data_root + 'panoptic_val/', vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_cfg = dict(type='TestLoop')
