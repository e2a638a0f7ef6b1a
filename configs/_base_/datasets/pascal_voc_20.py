"""PASCAL VOC 2012 without background, whose pixels are void: semantic annotations of 1449 pictures.

Prepare: python tools/prepare_data.py pascal_voc
"""
_base_ = '../semantic_maps.py'

data_root = 'data/VOCdevkit/VOC2012/'
vocabulary = 'pascal_voc_20'
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='ImageSets/Segmentation/val.txt',
        data_prefix=dict(img='JPEGImages/', seg='labels_21/'),
        reduce_zero_label=True,
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
