"""RADSeg, C-RADIOv3-B, on Cityscapes.

Metric: mIoU; the paper gives averages only (not measured here yet).
Command: python tools/test.py configs/dense_clip/radseg_c-radio-v3-b_cityscapes.py
Source: arXiv 2511.19704.
"""
_base_ = ['_base_/radseg.py', '../_base_/datasets/cityscapes_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_560))
