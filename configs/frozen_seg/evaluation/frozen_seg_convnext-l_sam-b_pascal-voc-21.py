"""FrozenSeg, frozen ConvNeXt-L CLIP and SAM ViT-B, official weights, on PASCAL VOC with background.

Metric: published, mIoU 82.5, fwIoU 92.1 (not measured here yet).
Command: python tools/test.py configs/frozen_seg/evaluation/frozen_seg_convnext-l_sam-b_pascal-voc-21.py CHECKPOINT
Source: Chen et al., arXiv 2409.03525. Own training: python tools/test.py CONFIG CHECKPOINT --data pascal_voc_21
"""
_base_ = ['../_base_/frozen_seg_model.py', '../../_base_/datasets/pascal_voc_21.py', '../../fc_clip/_base_/runtime.py']

model = dict(
    mask_generator=dict(sam_branch=dict(compat=True)),
    classifier=dict(vocabulary=_base_.vocabulary),
    postprocess=_base_.postprocess)
