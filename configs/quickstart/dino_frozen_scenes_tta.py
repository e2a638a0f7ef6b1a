"""Quickstart, row (c) tested at two scales, each mirrored too.

Command: python tools/test.py configs/quickstart/dino_frozen_scenes_tta.py CHECKPOINT --tta
"""
_base_ = 'dino_frozen_scenes.py'

tta_model = dict(
    type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.6), max_per_img=40))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(160, 160), keep_ratio=True),
                dict(type='Resize', scale=(192, 192), keep_ratio=True),
            ],
            [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
                               'flip_direction'))
            ],
        ])
]
