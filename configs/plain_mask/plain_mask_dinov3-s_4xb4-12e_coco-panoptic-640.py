"""PMT: plain mask decoder on a frozen DINOv3-S, COCO panoptic at 640 pixels.

Metric: published, PQ 45.3 (not measured here yet).
Command: python tools/train.py configs/plain_mask/plain_mask_dinov3-s_4xb4-12e_coco-panoptic-640.py
Source: PMT (arXiv 2603.25398). DINOv3 weights have their own licence, not Apache-2.0.
"""
_base_ = 'plain_mask_dinov3-l_4xb4-12e_coco-panoptic-640.py'

model = dict(tower=dict(model='dinov3_vits16'), taps=[2, 5, 8, 11])
