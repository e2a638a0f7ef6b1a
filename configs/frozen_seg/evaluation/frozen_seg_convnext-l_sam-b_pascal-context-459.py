"""FrozenSeg, frozen ConvNeXt-L CLIP and SAM ViT-B, official weights, on PASCAL Context with 459 classes.

Metric: published, mIoU 19.7, fwIoU 60.2 (18.5 and 59.0 without SAM's masks) (not measured here yet).
Command: python tools/test.py configs/frozen_seg/evaluation/frozen_seg_convnext-l_sam-b_pascal-context-459.py CHECKPOINT
SAM's prepared masks take part with --cfg-options +model.sam_masks.folder=FOLDER
Source: Chen et al., arXiv 2409.03525. Own training: python tools/test.py CONFIG CHECKPOINT --data pascal_context_459
"""
_base_ = [
    '../_base_/frozen_seg_model.py',
    '../../_base_/datasets/pascal_context_459.py',
    '../../fc_clip/_base_/runtime.py'
]

model = dict(
    mask_generator=dict(sam_branch=dict(compat=True)),
    classifier=dict(vocabulary=_base_.vocabulary),
    postprocess=_base_.postprocess)
