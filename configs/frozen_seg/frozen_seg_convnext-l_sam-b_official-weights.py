"""FrozenSeg for converted official weights, whose SAM branch was trained with the official kernel's arithmetic.

Metric: published, ADE20K PQ 25.9, AP 16.4, mIoU 34.4 (not measured here yet).
Command: python tools/convert.py frozen_seg IN.pth OUT.safetensors, then
    python tools/test.py configs/frozen_seg/frozen_seg_convnext-l_sam-b_official-weights.py OUT.safetensors
Source: Chen et al., arXiv 2409.03525.
"""
_base_ = 'frozen_seg_convnext-l_sam-b_4xb4-369k_coco-panoptic.py'

model = dict(mask_generator=dict(sam_branch=dict(compat=True)))
