"""MoCo v3 ViT-B/16 and BERT, two encoders of one modality each; PASCAL-5i, fold 0.

Metric: mIoU and FB-IoU of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_mocov3-b16_bert_pascal5i-fold0.py
Source: Ma et al., "Open-vocabulary Semantic Segmentation with Frozen Vision-Language Models" (BMVC 2022).
"""
_base_ = 'fusioner_clip-l14_clip-l14_pascal5i-fold0.py'

model = dict(
    backbone=dict(
        tower=dict(
            _delete_=True,
            type='frozenmm.TimmTower',
            model='vit_base_patch16_224',
            weights='data/weights/mocov3_vit-b16_timm-names.safetensors')),
    decode_head=dict(
        text_tower=dict(_delete_=True, type='frozenmm.BertTextTower', folder='data/weights/bert-base-uncased')))
