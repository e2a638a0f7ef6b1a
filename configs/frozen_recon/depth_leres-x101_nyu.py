"""Frozen LeReS (ResNeXt-101, official weights) as a depth model of mmseg.

Metric: AbsRel after alignment on NYU Depth v2 (not measured here: no official weights on the machine).
Command: python tools/test.py configs/frozen_recon/depth_leres-x101_nyu.py
Source: Learning to Recover 3D Scene Shape from a Single Image, CVPR 2021.
"""
_base_ = '_base_/nyu.py'

model = dict(
    type='frozenmm.FrozenDepthEstimator',
    network=dict(type='frozenmm.LeReS', encoder='resnext101', weights=None))
