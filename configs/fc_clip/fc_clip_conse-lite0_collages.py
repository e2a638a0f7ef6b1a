"""FC-CLIP on embedded networks, trained on collages of 20 COCO things on clutter; 10 other things are met in the test.

The pictures are made when the data set is built, from cut-outs of coco_mini; no cut-out of training occurs in the test.

Metric: mIoU on 150 pictures, seen and unseen.
Command: python tools/train.py configs/fc_clip/fc_clip_conse-lite0_collages.py
Source: Yu et al., NeurIPS 2023, sizes of our own; a demonstration, not a benchmark.
"""
_base_ = '_base_/fc_clip_conse-lite0.py'

source = 'data/coco_mini/'
unseen = ['cat', 'dog', 'bird', 'sheep', 'elephant', 'zebra', 'pizza', 'broccoli', 'banana', 'laptop']
vocabulary = dict(
    name='collages',
    classes=['person', 'car', 'airplane', 'train', 'truck', 'horse', 'backpack', 'handbag', 'tie', 'suitcase',
             'frisbee', 'skateboard', 'cup', 'bowl', 'couch', 'bed', 'chair', 'clock', 'teddy bear', 'refrigerator',
             'cat', 'dog', 'bird', 'sheep', 'elephant', 'zebra', 'pizza', 'broccoli', 'banana', 'laptop',
             'ground, background'],
    stuff_classes=['ground, background'])
train_vocabulary = dict(of=vocabulary, without=unseen)
side = 192
iterations = 600

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchFixedSizePad', size=(side, side), pad_mask=True, pad_seg=True)]),
    mask_generator=dict(decoder=dict(num_queries=20)),
    classifier=dict(train_vocabulary=train_vocabulary, vocabulary=vocabulary),
    postprocess=dict(tasks=('semantic', )))

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='frozenmm.Collages',
        source=source,
        split='train',
        vocabulary=train_vocabulary,
        count=300,
        size=side,
        pipeline=[
            dict(type='frozenmm.StoredVariants', variants=2, transforms=[
                dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion')]),
            dict(type='PackDetInputs')
        ]))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='frozenmm.Collages',
        source=source,
        split='val',
        vocabulary=vocabulary,
        unseen=unseen,
        count=150,
        size=side,
        test_mode=True,
        pipeline=[dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'))]))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=train_vocabulary)
]
test_evaluator = val_evaluator
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.TimeBudgetHook', iterations=iterations),
]
