"""ADE20K with 150 classes: panoptic, semantic and instance annotations of 2000 pictures.

The semantic maps are the publisher's own; the panoptic ones call some of their pixels void.
Prepare: python tools/prepare_data.py ade20k
"""
_base_ = '../panoptic_maps.py'

data_root = 'data/ADEChallengeData2016/'
vocabulary = 'ade20k_150'
postprocess = dict(tasks=('semantic', 'panoptic', 'instance'))

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='frozenmm.LoadLabelMap', key='sem_map_path', reduce_zero_label=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='ade20k_panoptic_val.json',
        data_prefix=dict(img='images/validation/', seg='ade20k_panoptic_val/', sem='annotations/validation/'),
        vocabulary=vocabulary,
        pipeline=test_pipeline))
test_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'ade20k_panoptic_val.json',
         seg_prefix=data_root + 'ade20k_panoptic_val/', vocabulary=vocabulary,
         train_vocabulary=_base_.train_vocabulary),
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary),
    dict(type='frozenmm.SplitCocoMetric', ann_file=data_root + 'ade20k_instance_val.json', metric='segm',
         vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
