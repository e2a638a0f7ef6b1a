"""RADSeg, C-RADIOv3-B, on PASCAL VOC 2012 without background.

Metric: mIoU; the paper gives averages only (not measured here yet).
Command: python tools/test.py configs/dense_clip/radseg_c-radio-v3-b_pascal-voc-20.py
Source: arXiv 2511.19704.
"""
_base_ = ['_base_/radseg.py', '../_base_/datasets/pascal_voc_20.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
