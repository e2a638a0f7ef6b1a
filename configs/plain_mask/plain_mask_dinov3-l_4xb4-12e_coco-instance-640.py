"""PMT: plain mask decoder on a frozen DINOv3-L, COCO instances at 640 pixels.

Metric: published, mask AP 45.4 (not measured here yet).
Command: python tools/train.py configs/plain_mask/plain_mask_dinov3-l_4xb4-12e_coco-instance-640.py
Source: PMT (arXiv 2603.25398). DINOv3 weights have their own licence, not Apache-2.0.
"""
_base_ = ['_base_/plain_mask.py', '_base_/recipe.py', '_base_/coco_instance.py']

model = dict(classifier=dict(vocabulary=list(_base_.classes)), postprocess=dict(tasks=('instance', )))
