"""A plain mask decoder on the maps of a frozen EfficientNet-Lite0, trained on 70 COCO images with all 133 classes.

Metric: panoptic quality, mIoU and mask AP on 68 validation images.
Command: python tools/train.py configs/plain_mask/plain_mask_lite0_coco-mini.py
Source: PMT (arXiv 2603.25398), sizes of our own; data and minutes of `fc_clip_conse-lite0_coco-mini.py`.
"""
_base_ = '../fc_clip/fc_clip_conse-lite0_coco-mini.py'

iterations = 1500
model = dict(
    _delete_=True,
    type='frozenmm.PlainMaskSegmentor',
    data_preprocessor=_base_.model.data_preprocessor,
    tower=_base_.model.tower,
    taps=['res2', 'res3', 'res4', 'res5'],
    stride=16,
    classifier=dict(vocabulary=_base_.vocabulary),
    mask_generator=dict(channels=64, num_heads=2, num_queries=50, num_blocks=2, hidden_channels=128),
    criterion=dict(num_points=512),
    postprocess=dict(tasks=('semantic', 'panoptic', 'instance'), score_threshold=0.0, overlap_threshold=0.8, top_k=50))
custom_hooks = [
    dict(type='frozenmm.AccelerateHook'),
    dict(type='frozenmm.MaskAnnealingHook', start=[0, 300], end=[600, 1200]),
    dict(type='frozenmm.TimeBudgetHook', iterations=iterations),
]
