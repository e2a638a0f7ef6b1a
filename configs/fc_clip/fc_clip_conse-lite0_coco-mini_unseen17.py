"""The same, with 17 classes held out of training; evaluated with all 133, seen and unseen apart.

The held-out classes are some that ImageNet, all that ConSE knows, has words for. Their pixels are void in training.
To name the 17 alone at test time, give model, data set and metrics `dict(of=..., only=[...])` as vocabulary.

Metric: panoptic quality, mIoU and mask AP on 68 validation images, seen and unseen.
Command: python tools/train.py configs/fc_clip/fc_clip_conse-lite0_coco-mini_unseen17.py
Source: Yu et al., NeurIPS 2023, sizes of our own; a demonstration, not a benchmark.
"""
_base_ = 'fc_clip_conse-lite0_coco-mini.py'

train_vocabulary = dict(
    of='coco_panoptic_133',
    without=['motorcycle', 'bus', 'boat', 'bird', 'cat', 'dog', 'sheep', 'elephant', 'bear', 'zebra', 'umbrella',
             'pizza', 'broccoli', 'laptop', 'microwave', 'bridge', 'snow'])

model = dict(classifier=dict(train_vocabulary=train_vocabulary))
train_dataloader = dict(dataset=dict(vocabulary=train_vocabulary))
data_root = 'data/coco_mini/'
vocabulary = 'coco_panoptic_133'
val_evaluator = [
    dict(type='frozenmm.PanopticQuality', ann_file=data_root + 'annotations/panoptic_val.json',
         seg_prefix=data_root + 'panoptic_val/', vocabulary=vocabulary, train_vocabulary=train_vocabulary),
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=train_vocabulary),
    dict(type='frozenmm.SplitCocoMetric', ann_file=data_root + 'annotations/instances_val.json', metric='segm',
         vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_evaluator = val_evaluator
