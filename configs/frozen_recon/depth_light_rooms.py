"""The shipped demonstration depth network on test rooms, bent to 100 points of known depth (LWLR) beside.

Metric: AbsRel after alignment; figures in the README.
Command: python tools/test.py configs/frozen_recon/depth_light_rooms.py
         ... --cfg-options model.correction={}   (the prediction itself bent to the points)
"""
_base_ = '_base_/rooms.py'

model = dict(type='frozenmm.FrozenDepthEstimator', network=dict(type='frozenmm.LightDepth'), correction=None)
