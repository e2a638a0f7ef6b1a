"""FrozenSeg, frozen ConvNeXt-L CLIP and SAM ViT-B, official weights, on PASCAL Context with 59 classes.

Metric: published, mIoU 58.1, fwIoU 68.7 (not measured here yet).
Command: python tools/test.py configs/frozen_seg/evaluation/frozen_seg_convnext-l_sam-b_pascal-context-59.py CHECKPOINT
Source: Chen et al., arXiv 2409.03525. Own training: python tools/test.py CONFIG CHECKPOINT --data pascal_context_59
"""
_base_ = [
    '../_base_/frozen_seg_model.py',
    '../../_base_/datasets/pascal_context_59.py',
    '../../fc_clip/_base_/runtime.py'
]

model = dict(
    mask_generator=dict(sam_branch=dict(compat=True)),
    classifier=dict(vocabulary=_base_.vocabulary),
    postprocess=_base_.postprocess)
