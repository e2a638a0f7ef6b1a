"""FC-CLIP, frozen CLIP RN50x16 (OpenAI), trained on COCO panoptic.

Metric: published, ADE20K PQ 22.5, AP 13.6, mIoU 29.4 without training on it; COCO PQ 54.4 (not measured here yet).
Command: bash tools/dist_train.sh configs/fc_clip/fc_clip_rn50x16_8xb2-369k_coco-panoptic.py 8
Source: Yu et al., NeurIPS 2023, official repository.
"""
_base_ = 'fc_clip_rn50_8xb2-369k_coco-panoptic.py'

model = dict(
    tower=dict(model='RN50x16'),
    classifier=dict(
        embed_channels=768,
        text_tower=dict(model='RN50x16')))
