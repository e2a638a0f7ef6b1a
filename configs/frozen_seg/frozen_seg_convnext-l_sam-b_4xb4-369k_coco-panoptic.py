"""FrozenSeg, frozen ConvNeXt-L CLIP and SAM ViT-B, trained on COCO panoptic.

Metric: published, ADE20K PQ 25.9, AP 16.4, mIoU 34.4 without training on it; COCO PQ 56.2 (not measured here yet).
Command: bash tools/dist_train.sh configs/frozen_seg/frozen_seg_convnext-l_sam-b_4xb4-369k_coco-panoptic.py 4
Source: Chen et al., arXiv 2409.03525, tables 1 and 2.
"""
_base_ = ['_base_/frozen_seg_model.py', '../fc_clip/_base_/recipe_369k.py', '../fc_clip/_base_/coco_panoptic.py']

train_dataloader = dict(batch_size=4)
