"""Test sets with panoptic annotations: loader and pipeline. A data set states files, classes and metrics."""
# what was trained on, which decides what is seen
train_vocabulary = 'coco_panoptic_133'

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
    dataset=dict(type='frozenmm.CocoPanoptic', test_mode=True, pipeline=test_pipeline))
test_cfg = dict(type='TestLoop')
