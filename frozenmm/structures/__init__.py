"""Plain dataclasses that travel between stages; they know tensors and nothing else."""
from frozenmm.structures.images import ImageStats
from frozenmm.structures.tower_features import TowerFeatures, join_features, split_features

__all__ = ['ImageStats', 'TowerFeatures', 'join_features', 'split_features']
