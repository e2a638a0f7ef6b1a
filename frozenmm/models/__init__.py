"""An index and nothing else: every registered class of frozenmm, grouped by role.

Rooms that need mmdet or mmseg are listed only where that package is installed.
"""
# frozen parts for any model
from frozenmm.foundation.frozen_backbone import FrozenBackbone
from frozenmm.foundation.frozen_feature_neck import FrozenFeatureNeck
# image and text towers
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.foundation.remembering_tower import RememberingTower
# attention
from frozenmm.ops.deformable_attention import MultiScaleDeformableAttention
from frozenmm.registry import installed

if installed('mmdet'):
    # detectors
    from frozenmm.detection.frozen_detr import EnhancedDINO, EnhancedDINOHead
