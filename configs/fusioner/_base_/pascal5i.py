"""PASCAL-5i, fold 0: episodes of one seen class in training, of one unseen class at test.

Another fold: `train_dataloader.dataset.fold`, and `val_dataloader` and `test_dataloader` likewise.
"""
_base_ = 'episodes.py'

voc = dict(type='frozenmm.PASCAL5iDataset', fold=0, data_root='data/VOCdevkit/VOC2012')
train_dataloader = dict(dataset=dict(voc, split='train'))
val_dataloader = dict(dataset=dict(voc, split='test'))
test_dataloader = val_dataloader
val_evaluator = dict(num_classes=21)
test_evaluator = val_evaluator
