"""FrozenSeg, frozen CLIP RN50x64 (OpenAI) and SAM ViT-B, trained on COCO panoptic.

Metric: published, ADE20K PQ 23.1, AP 13.5, mIoU 30.7 without training on it; COCO PQ 55.7 (not measured here yet).
Command: bash tools/dist_train.sh configs/frozen_seg/frozen_seg_rn50x64_sam-b_4xb4-369k_coco-panoptic.py 4
Source: Chen et al., arXiv 2409.03525, tables 1 and 2.
"""
_base_ = 'frozen_seg_convnext-l_sam-b_4xb4-369k_coco-panoptic.py'

model = dict(
    tower=dict(_delete_=True, type='frozenmm.CLIPTower', model='RN50x64'),
    classifier=dict(
        embed_channels=1024,
        text_tower=dict(_delete_=True, type='frozenmm.CLIPTextTower', model='RN50x64')))
