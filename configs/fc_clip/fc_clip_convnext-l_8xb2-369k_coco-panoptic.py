"""FC-CLIP, frozen ConvNeXt-L CLIP (LAION-2B), trained on COCO panoptic.

Metric: published, ADE20K PQ 26.8, AP 16.8, mIoU 34.1 without training on it; COCO PQ 54.4 (not measured here yet).
Command: bash tools/dist_train.sh configs/fc_clip/fc_clip_convnext-l_8xb2-369k_coco-panoptic.py 8
Source: Yu et al., NeurIPS 2023, table 1. Convert official weights with `python tools/convert.py fc_clip`.
"""
_base_ = ['_base_/fc_clip.py', '_base_/coco_panoptic.py']
