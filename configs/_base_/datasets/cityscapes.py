"""Cityscapes: panoptic, semantic and instance annotations of 500 pictures.

AP is COCO's (pycocotools), not that of the Cityscapes scripts, which published tables give.
Prepare: python tools/prepare_data.py cityscapes
"""
_base_ = '../panoptic_maps.py'

data_root = 'data/cityscapes/'
vocabulary = 'cityscapes_19'
postprocess = dict(tasks=('semantic', 'panoptic', 'instance'))

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(2560, 1024), keep_ratio=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='leftImg8bit/val/', seg='panoptic_val/'),
        vocabulary=vocabulary,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'annotations/panoptic_val.json',
         seg_prefix=data_root + 'panoptic_val/', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary),
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary),
    dict(type='frozenmm.SplitCocoMetric', ann_file=data_root + 'annotations/instances_val.json', metric='segm',
         vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
