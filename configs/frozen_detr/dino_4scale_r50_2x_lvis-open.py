"""DINO, 4 levels, ResNet-50, on LVIS v1 with an open vocabulary.

Trained on the boxes of common and frequent classes; classes are CLIP's vectors of their names, 24 epochs.
Published: box AP 32.5 on LVIS v1 val, 15.2 / 32.8 / 39.8 for novel, common and frequent classes; not trained by us.
Command: bash tools/dist_train.sh configs/frozen_detr/dino_4scale_r50_2x_lvis-open.py 8
Source: Frozen-DETR (arXiv 2410.19635), table of LVIS; the README of its code.
"""
_base_ = './dino_4scale_r50_2x_lvis.py'

model = dict(bbox_head=dict(
    text_classifier=dict(
        text_tower=dict(type='frozenmm.CLIPTextTower', model='ViT-L/14@336px'), vocabulary='data/lvis/vocabulary.json',
        templates='imagenet80'),
    loss_cls=dict(without=['r'])))
train_dataloader = dict(dataset=dict(dataset=dict(without=['r'])))
