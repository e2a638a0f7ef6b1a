"""Attention over clips of four frames inside a frozen ViT-S; CamVid, 11 classes, frames in order.

Metric: mIoU; not measured, because no weights of a ViT come with frozenmm.
Command: python tools/train.py configs/further/space-time_vit-s_camvid.py
Source: Frozen in Time (ICCV 2021), its space-time blocks.
"""
_base_ = 'space-time_lite0_camvid.py'

model = dict(
    backbone=dict(tower=dict(
        _delete_=True, type='frozenmm.SpaceTimeAdapter', frames=4,
        tower=dict(type='frozenmm.TimmTower', model='vit_small_patch16_224.augreg_in21k_ft_in1k', resize_mode='none'))),
    neck=None,
    decode_head=dict(in_channels=384, in_index=0, input_transform=None))
test_dataloader = dict(batch_size=1)
