"""An index and nothing else: every registered class of frozenmm, grouped by role.

Rooms that need mmdet or mmseg are listed only where that package is installed.
"""
from frozenmm.registry import installed

# image and text towers
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.foundation.text_towers.clip import CLIPTextTower
from frozenmm.foundation.text_towers.hf import BertTextTower, MiniLMTextTower
from frozenmm.foundation.text_towers.open_clip import OpenCLIPTextTower

if installed('mmdet'):
    # detectors
    pass
