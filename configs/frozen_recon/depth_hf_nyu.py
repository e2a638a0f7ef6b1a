"""A frozen depth model of transformers (Depth-Anything, DPT, ZoeDepth, GLPN) from a folder, as a depth model of mmseg.

Metric: AbsRel after alignment on NYU Depth v2 (not measured here: no such model on the machine).
Command: python tools/test.py configs/frozen_recon/depth_hf_nyu.py --cfg-options model.network.folder=FOLDER
"""
_base_ = '_base_/nyu.py'

model = dict(
    type='frozenmm.FrozenDepthEstimator', network=dict(type='frozenmm.HFDepth', folder='checkpoints/depth-anything-v2'))
