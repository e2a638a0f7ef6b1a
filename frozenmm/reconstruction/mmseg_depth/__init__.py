"""Depth networks as models of mmseg: a loss, frozen networks, correction by known points."""
from frozenmm.reconstruction.mmseg_depth.estimators import CorrectedDepthEstimator, FrozenDepthEstimator
from frozenmm.reconstruction.mmseg_depth.losses import AffineDepthLoss

__all__ = ['AffineDepthLoss', 'CorrectedDepthEstimator', 'FrozenDepthEstimator']
