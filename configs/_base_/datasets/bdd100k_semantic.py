"""BDD100K: semantic annotations of 1000 pictures, the 19 classes of Cityscapes.

Prepare: python tools/prepare_data.py bdd100k
"""
_base_ = '../semantic_maps.py'

data_root = 'data/bdd100k/'
vocabulary = 'cityscapes_19'
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img='images/10k/val/', seg='labels/sem_seg/masks/val/'),
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
