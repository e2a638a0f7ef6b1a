"""FC-CLIP, frozen ConvNeXt-L CLIP, as an mmseg segmentor, evaluated on PASCAL VOC with background.

Metric: published, mIoU 81.8 (not measured here yet).
Command: python tools/test.py configs/fc_clip/mmseg/fc_clip_convnext-l_pascal-voc-21.py CHECKPOINT
Source: Yu et al., NeurIPS 2023, tables 1 to 3. Checkpoints of the mmdet model load as they are.
"""
_base_ = ['../_base_/fc_clip_mmseg.py', '../../_base_/datasets/pascal_voc_21.py']

model = dict(model=dict(classifier=dict(vocabulary=_base_.vocabulary)))
test_dataloader = dict(dataset=dict(pipeline=_base_.mmseg_pipeline))
