"""LVIS v1 with boxes: class-balanced training with DINO's augmentation, box AP of rare, common and frequent classes.

Prepare: python tools/prepare_data.py lvis
"""
_base_ = 'coco_dino.py'

data_root = 'data/lvis/'
vocabulary = 'data/lvis/vocabulary.json'

train_dataloader = dict(dataset=dict(
    _delete_=True,
    type='ClassBalancedDataset',
    oversample_thr=1e-3,
    dataset=dict(
        type='frozenmm.LVISBoxes', data_root=data_root, ann_file='lvis_v1_train.json', data_prefix=dict(img='../coco/'),
        vocabulary=vocabulary, pipeline={{_base_.train_pipeline}})))
val_dataset = dict(
    _delete_=True, type='frozenmm.LVISImages', data_root=data_root, ann_file='lvis_v1_val.json',
    data_prefix=dict(img='../coco/'), vocabulary=vocabulary, test_mode=True, pipeline={{_base_.test_pipeline}})
val_dataloader = dict(dataset=val_dataset)
test_dataloader = dict(dataset=val_dataset)

val_evaluator = dict(
    _delete_=True, type='frozenmm.LVISBoxAP', ann_file=data_root + 'lvis_v1_val.json', max_detections=300)
test_evaluator = val_evaluator
