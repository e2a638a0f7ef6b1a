"""Frozen monocular depth networks."""
from frozenmm.foundation.depth_networks.base import DEPTH_KINDS, DepthNetwork, DepthPrediction
from frozenmm.foundation.depth_networks.hf import HFDepth
from frozenmm.foundation.depth_networks.leres import LeReS

__all__ = ['DEPTH_KINDS', 'DepthNetwork', 'DepthPrediction', 'HFDepth', 'LeReS']
