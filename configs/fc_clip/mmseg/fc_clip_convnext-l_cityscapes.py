"""FC-CLIP, frozen ConvNeXt-L CLIP, as an mmseg segmentor, evaluated on Cityscapes.

Metric: published, mIoU 56.2 (not measured here yet).
Command: python tools/test.py configs/fc_clip/mmseg/fc_clip_convnext-l_cityscapes.py CHECKPOINT
Source: Yu et al., NeurIPS 2023, tables 1 to 3. Checkpoints of the mmdet model load as they are.
"""
_base_ = ['../_base_/fc_clip_mmseg.py', '../../_base_/datasets/cityscapes_semantic.py']

mmseg_pipeline = _base_.mmseg_pipeline
mmseg_pipeline[1].scale = (2560, 1024)
model = dict(model=dict(classifier=dict(vocabulary=_base_.vocabulary)))
test_dataloader = dict(dataset=dict(pipeline=mmseg_pipeline))
