"""Plain dataclasses that travel between stages; they know tensors and nothing else."""
from frozenmm.structures.images import ImageStats
from frozenmm.structures.tower_features import TowerFeatures

__all__ = ['ImageStats', 'TowerFeatures']
