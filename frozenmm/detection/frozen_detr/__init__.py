"""Frozen-DETR: frozen image encoders as feature enhancers of DETR-like detectors."""
from frozenmm.detection.frozen_detr.co_dino import EnhancedCoDINO
from frozenmm.detection.frozen_detr.detector import EnhancedDINO
from frozenmm.detection.frozen_detr.enhancer import FrozenEnhancer
from frozenmm.detection.frozen_detr.family import (
    EnhancedConditionalDETR,
    EnhancedDABDETR,
    EnhancedDDQDETR,
    EnhancedDeformableDETR,
    EnhancedGroundingDINO,
)
from frozenmm.detection.frozen_detr.federated_loss import FederatedQualityFocalLoss
from frozenmm.detection.frozen_detr.head import EnhancedDINOHead

__all__ = ['EnhancedCoDINO', 'EnhancedConditionalDETR', 'EnhancedDABDETR', 'EnhancedDDQDETR', 'EnhancedDINO',
           'EnhancedDINOHead', 'EnhancedDeformableDETR', 'EnhancedGroundingDINO', 'FederatedQualityFocalLoss',
           'FrozenEnhancer']
