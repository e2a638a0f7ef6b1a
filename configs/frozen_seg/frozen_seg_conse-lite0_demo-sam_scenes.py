"""FrozenSeg on embedded networks, trained on 100 generated scenes with six of their eight objects; no download at all.

The demonstration model stands where SAM stands: its features are injected, and its automatic masks may vote. Coin and
retina are held out, as in the FC-CLIP config that this one extends.

Metric: panoptic quality and mIoU on 200 scenes whose grounds and lights never occur in training, seen and unseen.
Command: python tools/train.py configs/frozen_seg/frozen_seg_conse-lite0_demo-sam_scenes.py
Source: Chen et al., arXiv 2409.03525, sizes of our own; a demonstration, not a benchmark.
"""
_base_ = '../fc_clip/fc_clip_conse-lite0_scenes.py'

# the query injector shares a projection with the mask features, so this is also the width of the demonstration model
width = 64

model = dict(
    type='frozenmm.FrozenSeg',
    sam_tower=dict(type='frozenmm.RememberingTower', tower=dict(type='frozenmm.DemoSAMTower')),
    mask_generator=dict(
        pixel_decoder=dict(channels=width, mask_channels=width),
        sam_branch=dict(
            channels=width, num_layers=1, num_heads=8, num_points=4, feedforward_channels=128),
        # the injection after a last layer would have no effect: with three layers none was left
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
