"""FrozenSeg, frozen ConvNeXt-L CLIP and SAM ViT-B, official weights, on Cityscapes.

Metric: published, PQ 45.8, AP 28.4, mIoU 56.8 (not measured here yet).
Command: python tools/test.py configs/frozen_seg/evaluation/frozen_seg_convnext-l_sam-b_cityscapes.py CHECKPOINT
Source: Chen et al., arXiv 2409.03525. Own training: python tools/test.py CONFIG CHECKPOINT --data cityscapes
"""
_base_ = ['../_base_/frozen_seg_model.py', '../../_base_/datasets/cityscapes.py', '../../fc_clip/_base_/runtime.py']

model = dict(
    mask_generator=dict(sam_branch=dict(compat=True)),
    classifier=dict(vocabulary=_base_.vocabulary),
    postprocess=_base_.postprocess)
