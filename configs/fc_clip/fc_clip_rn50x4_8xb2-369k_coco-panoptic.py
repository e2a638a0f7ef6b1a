"""FC-CLIP, frozen CLIP RN50x4 (OpenAI), trained on COCO panoptic.

Metric: published, ADE20K PQ 21.8, AP 11.7, mIoU 26.8 without training on it; COCO PQ 52.1 (not measured here yet).
Command: bash tools/dist_train.sh configs/fc_clip/fc_clip_rn50x4_8xb2-369k_coco-panoptic.py 8
Source: Yu et al., NeurIPS 2023, official repository.
"""
_base_ = 'fc_clip_rn50_8xb2-369k_coco-panoptic.py'

model = dict(
    tower=dict(model='RN50x4'),
    classifier=dict(
        embed_channels=640,
        text_tower=dict(model='RN50x4')))
