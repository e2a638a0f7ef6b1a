"""Metrics; they know tensors and data samples, not systems."""
from frozenmm.evaluation.recall import MaskRecallMetric

__all__ = ['MaskRecallMetric']
