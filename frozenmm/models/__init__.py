"""An index and nothing else: every registered class of frozenmm, grouped by role.

Rooms that need mmdet or mmseg are listed only where that package is installed.
"""
# image and text towers
from frozenmm.foundation.conse import ConSE
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.dinov2 import DINOv2Tower
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.foundation.image_towers.open_clip import OpenCLIPTower
from frozenmm.foundation.image_towers.sam import MobileSAMTower, SAMTower
from frozenmm.foundation.image_towers.timm import TimmTower
from frozenmm.foundation.text_towers.clip import CLIPTextTower
from frozenmm.foundation.text_towers.hf import BertTextTower, MiniLMTextTower
from frozenmm.foundation.text_towers.open_clip import OpenCLIPTextTower
from frozenmm.registry import installed

if installed('mmdet'):
    # detectors
    pass
