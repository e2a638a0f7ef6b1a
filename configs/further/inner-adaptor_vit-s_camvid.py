"""Trained copies behind two frozen blocks of a ViT-S; CamVid, 11 classes.

Metric: mIoU; not measured, because no weights of a ViT come with frozenmm.
Command: python tools/train.py configs/further/inner-adaptor_vit-s_camvid.py
Source: Inner-Adaptor Architecture (arXiv 2408.12902).
"""
_base_ = 'frozen-llm-block_lite0_camvid.py'

model = dict(
    backbone=dict(tower=dict(
        _delete_=True, type='frozenmm.InnerAdaptor', after=[8, 10],
        tower=dict(type='frozenmm.TimmTower', model='vit_small_patch16_224.augreg_in21k_ft_in1k', resize_mode='none'))),
    neck=None,
    decode_head=dict(in_channels=384, in_index=0, input_transform=None))
