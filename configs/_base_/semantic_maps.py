"""Test sets with label maps: loader and pipeline. A data set states files, classes and metrics."""
# what was trained on, which decides what is seen
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
    dataset=dict(type='frozenmm.SemanticMaps', test_mode=True, pipeline=test_pipeline))
test_cfg = dict(type='TestLoop')
