"""Metrics; they know tensors and data samples, not systems."""
from frozenmm.evaluation.episodic_iou import EpisodicIoUMetric
from frozenmm.evaluation.recall import MaskRecallMetric

__all__ = ['EpisodicIoUMetric', 'MaskRecallMetric']
