"""ADE20K with 847 classes: semantic annotations of 2000 pictures, short side at most 512.

Prepare: python tools/prepare_data.py ade20k_full
"""
_base_ = '../semantic_maps.py'

data_root = 'data/ADE20K_2021_17_01/'
vocabulary = 'ade20k_847'
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img='images_512/val/', seg='labels_847/val/'),
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
