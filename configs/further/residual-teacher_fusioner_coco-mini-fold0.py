"""Fusioner with a trained adapter on the map in the space of the names, held by a residual teacher; coco_mini fold 0.

Metric: mIoU of unseen classes, in benchmarks/results/residual_teacher.json beside frozen and untaught.
Command: python tools/train.py configs/further/residual-teacher_fusioner_coco-mini-fold0.py
Source: FROSTER (ICLR 2024).
"""
_base_ = '../fusioner/fusioner_lite0_minilm_coco-mini-fold0.py'

model = dict(
    neck=dict(type='frozenmm.TaughtAdapter', in_channels=[320, 384], adapt=1),
    decode_head=dict(in_index=[0, 1]),
    auxiliary_head=dict(type='frozenmm.ResidualTeacher', in_channels=384, student=1))
