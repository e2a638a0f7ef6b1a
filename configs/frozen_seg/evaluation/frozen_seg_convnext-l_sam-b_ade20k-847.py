"""FrozenSeg, frozen ConvNeXt-L CLIP and SAM ViT-B, official weights, on ADE20K with 847 classes.

Metric: published, mIoU 14.8, fwIoU 51.4 (14.4 and 51.5 without SAM's masks) (not measured here yet).
Command: python tools/test.py configs/frozen_seg/evaluation/frozen_seg_convnext-l_sam-b_ade20k-847.py CHECKPOINT
SAM's prepared masks take part with --cfg-options +model.sam_masks.folder=FOLDER
Source: Chen et al., arXiv 2409.03525. Own training: python tools/test.py CONFIG CHECKPOINT --data ade20k_847
"""
_base_ = ['../_base_/frozen_seg_model.py', '../../_base_/datasets/ade20k_847.py', '../../fc_clip/_base_/runtime.py']

model = dict(
    mask_generator=dict(sam_branch=dict(compat=True)),
    classifier=dict(vocabulary=_base_.vocabulary),
    postprocess=_base_.postprocess)
