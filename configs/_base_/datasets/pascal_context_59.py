"""PASCAL Context with 59 classes: semantic annotations of 5105 pictures.

Prepare: python tools/prepare_data.py pascal_context
"""
_base_ = '../semantic_maps.py'

data_root = 'data/VOCdevkit/VOC2010/'
vocabulary = 'pascal_context_59'
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='ImageSets/Main/val.txt',
        data_prefix=dict(img='JPEGImages/', seg='labels_59/'),
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
