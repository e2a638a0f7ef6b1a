"""RADSeg, C-RADIOv3-B, on COCO-Stuff 164k.

Metric: mIoU; the paper gives averages only (not measured here yet).
Command: python tools/test.py configs/dense_clip/radseg_c-radio-v3-b_coco-stuff-164k.py
Source: arXiv 2511.19704.
"""
_base_ = ['_base_/radseg.py', '_base_/coco_stuff_164k.py']

model = dict(
    vocabulary=_base_.vocabulary)
test_dataloader = dict(dataset=dict(pipeline=_base_.pipeline_336))
