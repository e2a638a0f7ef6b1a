"""Frozen-DETR: DINO, 4 levels, ResNet-50 + frozen CLIP ViT-L/14 at 336 px, on LVIS v1 with an open vocabulary.

Trained on the boxes of common and frequent classes; classes are CLIP's vectors of their names, 24 epochs.
Published: box AP 40.0 on LVIS v1 val, 23.8 / 41.9 / 44.9 for novel, common and frequent classes; not trained by us.
Command: bash tools/dist_train.sh configs/frozen_detr/frozen_dino_4scale_r50_clip-l336_2x_lvis-open.py 8
Source: Frozen-DETR (arXiv 2410.19635), table of LVIS; the README of its code.
"""
_base_ = './frozen_dino_4scale_r50_clip-l336_2x_lvis.py'

model = dict(bbox_head=dict(
    text_classifier=dict(
        text_tower=dict(type='frozenmm.CLIPTextTower', model='ViT-L/14@336px'), vocabulary='data/lvis/vocabulary.json',
        templates='imagenet80'),
    loss_cls=dict(without=['r'])))
train_dataloader = dict(dataset=dict(dataset=dict(without=['r'])))
