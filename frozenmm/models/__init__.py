"""An index and nothing else: every registered class of frozenmm, grouped by role.

Rooms that need mmdet or mmseg are listed only where that package is installed.
"""
from frozenmm.registry import installed

# image and text towers
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower

if installed('mmdet'):
    # detectors
    from frozenmm.detection.frozen_detr import EnhancedDINO, EnhancedDINOHead
