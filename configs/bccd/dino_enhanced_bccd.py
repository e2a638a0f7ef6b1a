"""DINO with its own backbone and frozen EfficientNet-Lite0 as enhancer, on BCCD: image queries and encoder levels.

Metric: COCO box AP on 87 validation pictures: see README.md beside this file.
Command: python tools/train.py configs/bccd/dino_enhanced_bccd.py --cfg-options data_root=path/to/bccd
Source: Frozen-DETR (Fu et al., NeurIPS 2024).
"""
_base_ = 'dino_scratch_bccd.py'

model = dict(enhancers=[
    dict(
        tower=dict(
            type='frozenmm.RememberingTower',
            tower=dict(type='frozenmm.EfficientNetLiteTower', resize_mode='none', out_maps=['res3', 'res4', 'res5'])),
        image_queries=5,
        patch_maps=['res3', 'res4'])
])
