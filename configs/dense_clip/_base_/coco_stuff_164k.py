"""COCO-Stuff 164k: 171 things and stuff, val2017, in mmseg's layout (its tools/dataset_converters)."""
_base_ = '../../_base_/semantic_maps.py'

data_root = 'data/coco_stuff164k/'
vocabulary = 'coco_stuff_171'
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img='images/val2017/', seg='annotations/val2017/'),
        seg_suffix='_labelTrainIds.png',
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
