"""FC-CLIP, frozen CLIP RN50x64 (OpenAI), trained on COCO panoptic.

Metric: published, ADE20K PQ 22.8, AP 13.6, mIoU 28.4 without training on it; COCO PQ 55.6 (not measured here yet).
Command: bash tools/dist_train.sh configs/fc_clip/fc_clip_rn50x64_8xb2-369k_coco-panoptic.py 8
Source: Yu et al., NeurIPS 2023, official repository.
"""
_base_ = 'fc_clip_rn50_8xb2-369k_coco-panoptic.py'

model = dict(
    tower=dict(model='RN50x64'),
    classifier=dict(
        embed_channels=1024,
        text_tower=dict(model='RN50x64')))
