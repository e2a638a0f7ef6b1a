"""COCO-20i (2014), fold 0: episodes of one seen class in training; 1000 of one unseen class at test, even over classes.

Label maps: PNG, rank of the COCO category from 1, 0 background. Another fold: `train_dataloader.dataset.fold`, and
`val_dataloader` and `test_dataloader` likewise. The official test: `test='first1000'`.
"""
_base_ = 'episodes.py'

coco = dict(type='frozenmm.COCO20iDataset', fold=0, data_root='data/coco')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='frozenmm.LoadEpisodeMap'),
    dict(type='frozenmm.FusionerAugmentation', size=224, colour=0.2, degrees=10),  # weaker than on PASCAL
    dict(type='frozenmm.PackEpisode')
]
train_dataloader = dict(
    dataset=dict(
        coco,
        split='train',
        data_prefix=dict(img_path='train2014', seg_map_path='annotations/train2014'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        coco,
        split='test',
        test='balanced1000',
        data_prefix=dict(img_path='val2014', seg_map_path='annotations/val2014')))
test_dataloader = val_dataloader
val_evaluator = dict(num_classes=81)
test_evaluator = val_evaluator
