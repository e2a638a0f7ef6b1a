"""RADSeg, C-RADIOv3-B, on PASCAL Context with 59 classes.

Metric: mIoU; the paper gives averages only (not measured here yet).
Command: python tools/test.py configs/dense_clip/radseg_c-radio-v3-b_pascal-context-59.py
Source: arXiv 2511.19704.
"""
_base_ = ['_base_/radseg.py', '../_base_/datasets/pascal_context_59.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
