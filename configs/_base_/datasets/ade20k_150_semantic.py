"""ADE20K with 150 classes: semantic annotations of 2000 pictures.

Prepare: python tools/prepare_data.py ade20k
"""
_base_ = '../semantic_maps.py'

data_root = 'data/ADEChallengeData2016/'
vocabulary = 'ade20k_150'
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img='images/validation/', seg='annotations/validation/'),
        reduce_zero_label=True,
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
