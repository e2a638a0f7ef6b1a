"""Row (b) of the quickstart on real images: any data set in COCO layout, 320 px, 12 epochs of COCO's size.

Metric: COCO box AP. Classes come from the annotation file when data_root is given on the command line:
python tools/train.py configs/quickstart/dino_enhanced_coco.py --cfg-options data_root=path/to/coco
(or FROZENMM_DATA_ROOT=path/to/coco). The folder holds annotations/instances_{train,val}.json and images/{train,val}/,
or COCO's own annotations/instances_{train,val}2017.json and {train,val}2017/.
"""
_base_ = 'dino_enhanced_scenes.py'

data_root = 'data/coco'

model = dict(num_queries=150, bbox_head=dict(num_classes=80), dn_cfg=dict(group_cfg=dict(num_dn_queries=50)),
             test_cfg=dict(max_per_img=150))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True, type='CocoDataset', data_root=data_root, ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'), filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True, type='CocoDataset', data_root=data_root, ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'), test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}/annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(max_iters=175000, val_interval=10000)
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', iterations=175000, warmup=0.005),
]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=5000))
