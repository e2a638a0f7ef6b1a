"""Quickstart, row (b): row (a) with frozen EfficientNet-Lite0 as enhancer: image queries and encoder levels.

Command: python tools/train.py configs/quickstart/dino_enhanced_scenes.py
Source: Frozen-DETR (Fu et al., NeurIPS 2024).
"""
_base_ = 'dino_scratch_scenes.py'

model = dict(enhancers=[
    dict(
        tower=dict(
            type='frozenmm.RememberingTower',
            tower=dict(type='frozenmm.EfficientNetLiteTower', resize_mode='none', out_maps=['res4', 'res5'])),
        image_queries=5,
        patch_maps=['res4', 'res5'])
])
