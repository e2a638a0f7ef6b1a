"""FC-CLIP, frozen CLIP RN50 (OpenAI), trained on COCO panoptic.

Metric: published, ADE20K PQ 17.9, AP 9.5, mIoU 23.3 without training on it; COCO PQ 50.7 (not measured here yet).
Command: bash tools/dist_train.sh configs/fc_clip/fc_clip_rn50_8xb2-369k_coco-panoptic.py 8
Source: Yu et al., NeurIPS 2023, official repository.
"""
_base_ = ['_base_/fc_clip.py', '_base_/coco_panoptic.py']

model = dict(
    tower=dict(_delete_=True, type='frozenmm.CLIPTower', model='RN50'),
    classifier=dict(
        embed_channels=1024,
        text_tower=dict(_delete_=True, type='frozenmm.CLIPTextTower', model='RN50')))
