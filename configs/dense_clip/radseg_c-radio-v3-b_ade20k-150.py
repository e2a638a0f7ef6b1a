"""RADSeg, C-RADIOv3-B, on ADE20K with 150 classes.

Metric: mIoU; the paper gives averages only (not measured here yet).
Command: python tools/test.py configs/dense_clip/radseg_c-radio-v3-b_ade20k-150.py
Source: arXiv 2511.19704.
"""
_base_ = ['_base_/radseg.py', '../_base_/datasets/ade20k_150_semantic.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
