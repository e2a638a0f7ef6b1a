"""BDD100K: panoptic annotations of 1000 pictures, 40 classes.

Prepare: python tools/prepare_data.py bdd100k
"""
_base_ = '../panoptic_maps.py'

data_root = 'data/bdd100k/'
vocabulary = 'bdd100k_40'
postprocess = dict(tasks=('panoptic', ), score_threshold=0.4)
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='images/10k/val/', seg='panoptic_val/'),
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'annotations/panoptic_val.json',
         seg_prefix=data_root + 'panoptic_val/', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
