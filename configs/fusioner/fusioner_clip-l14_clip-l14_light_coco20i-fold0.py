"""The light decoder in place of the official one, features cached, without augmentation; COCO-20i, fold 0.

Metric: mIoU and FB-IoU of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_clip-l14_clip-l14_light_coco20i-fold0.py
Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022).
"""
_base_ = 'fusioner_clip-l14_clip-l14_coco20i-fold0.py'

model = dict(
    backbone=dict(
        tower=dict(
            _delete_=True,
            type='frozenmm.CachedTower',
            folder='cache/features/clip-l14_224',
            store='bf16',
            quota_gb=200.0,
            tower=dict(type='frozenmm.CLIPTower', model='ViT-L/14', patch_output='projected'))),
    decode_head=dict(decoder=dict(type='frozenmm.LightFusionerDecoder')))

train_dataloader = dict(dataset=dict(pipeline={{_base_.test_pipeline}}))
