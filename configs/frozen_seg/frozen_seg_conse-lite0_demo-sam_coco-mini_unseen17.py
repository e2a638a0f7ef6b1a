"""FrozenSeg on embedded networks, trained on 70 COCO images with 116 classes; 17 are held out and evaluated as unseen.

Metric: panoptic quality, mIoU and mask AP on 68 validation images, seen and unseen.
Command: python tools/train.py configs/frozen_seg/frozen_seg_conse-lite0_demo-sam_coco-mini_unseen17.py
Source: Chen et al., arXiv 2409.03525, sizes of our own; a demonstration, not a benchmark.
"""
_base_ = '../fc_clip/fc_clip_conse-lite0_coco-mini_unseen17.py'

# see frozen_seg_conse-lite0_demo-sam_scenes.py
width = 64

model = dict(
    type='frozenmm.FrozenSeg',
    sam_tower=dict(type='frozenmm.RememberingTower', tower=dict(type='frozenmm.DemoSAMTower')),
    mask_generator=dict(
        pixel_decoder=dict(channels=width, mask_channels=width),
        sam_branch=dict(
            channels=width, num_layers=1, num_heads=8, num_points=4, feedforward_channels=128),
        decoder=dict(in_channels=width, channels=width, mask_channels=width, num_layers=4, query_residue=2)),
    classifier=dict(channels=width),
    sam_masks=dict(
        automatic=dict(
            prompter=dict(type='frozenmm.DemoSAMPrompter'),
            points_per_side=16,
            iou_threshold=0.5,
            stability_threshold=0.6),
        epsilon=0.2,
        threshold=0.5))
