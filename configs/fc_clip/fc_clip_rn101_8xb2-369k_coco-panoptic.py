"""FC-CLIP, frozen CLIP RN101 (OpenAI), trained on COCO panoptic.

Metric: published, ADE20K PQ 19.1, AP 10.2, mIoU 24.0 without training on it; COCO PQ 51.4 (not measured here yet).
Command: bash tools/dist_train.sh configs/fc_clip/fc_clip_rn101_8xb2-369k_coco-panoptic.py 8
Source: Yu et al., NeurIPS 2023, official repository.
"""
_base_ = 'fc_clip_rn50_8xb2-369k_coco-panoptic.py'

model = dict(
    tower=dict(model='RN101'),
    classifier=dict(
        embed_channels=512,
        text_tower=dict(model='RN101')))
