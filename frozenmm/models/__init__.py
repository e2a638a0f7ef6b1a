"""An index and nothing else: every registered class of frozenmm, grouped by role.

Rooms that need mmdet or mmseg are listed only where that package is installed.
"""
from frozenmm.compat import explained

# classes from examples
from frozenmm.foundation.class_memory import ClassMemory

# image vectors in text space
from frozenmm.foundation.conse import ConSE
from frozenmm.foundation.conse_tower import ConSETower

# frozen depth networks
from frozenmm.foundation.depth_networks import HFDepth, LeReS

# image and text towers
from frozenmm.foundation.feature_cache.cached_tower import CachedTower

# frozen parts for any model
from frozenmm.foundation.frozen_backbone import FrozenBackbone
from frozenmm.foundation.frozen_feature_neck import FrozenFeatureNeck
from frozenmm.foundation.frozen_llm_block import FrozenLLMBlock, FrozenLLMNeck
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.dino import DINOTower
from frozenmm.foundation.image_towers.dinov2 import DINOv2Tower
from frozenmm.foundation.image_towers.dinov3 import DINOv3Tower
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.foundation.image_towers.hf import HFTower
from frozenmm.foundation.image_towers.open_clip import OpenCLIPTower
from frozenmm.foundation.image_towers.radio import RADIOTower
from frozenmm.foundation.image_towers.sam import MobileSAMTower, SAMTower
from frozenmm.foundation.image_towers.timm import TimmTower

# trained parts in and around frozen towers
from frozenmm.foundation.inner_adaptor import InnerAdaptor
from frozenmm.foundation.layer_analysis import SkippingTower
from frozenmm.foundation.learned_words import NewWords, PromptedTextTower
from frozenmm.foundation.mask_prompters import SAMPrompter
from frozenmm.foundation.remembering_tower import RememberingTower
from frozenmm.foundation.residual_teacher import ResidualTeacher, TaughtAdapter
from frozenmm.foundation.shared_tower import SharedTower
from frozenmm.foundation.space_time import SpaceTimeAdapter, SpaceTimeNeck
from frozenmm.foundation.text_towers.clip import CLIPTextTower
from frozenmm.foundation.text_towers.hf import BertTextTower, MiniLMTextTower
from frozenmm.foundation.text_towers.long_caption import LongCaptionTower
from frozenmm.foundation.text_towers.open_clip import OpenCLIPTextTower

# how sure a regressor is
from frozenmm.foundation.uncertainty_cap import GeneralisedGaussianLoss, UncertaintyCap

# attention
from frozenmm.ops.deformable_attention import MultiScaleDeformableAttention
from frozenmm.registry import installed

if installed('mmdet'):
    with explained('mmdet'):
        # detectors
        from frozenmm.detection.frozen_detr import (
            EnhancedCoDINO,
            EnhancedConditionalDETR,
            EnhancedDABDETR,
            EnhancedDDQDETR,
            EnhancedDeformableDETR,
            EnhancedDINO,
            EnhancedDINOHead,
            EnhancedGroundingDINO,
            FederatedQualityFocalLoss,
        )

        # open-vocabulary segmentation
        from frozenmm.segmentation.fc_clip.segmentor import FCCLIP
        from frozenmm.segmentation.frozen_seg.segmentor import FrozenSeg

        # closed-set segmentation
        from frozenmm.segmentation.plain_mask.segmentor import PlainMaskSegmentor
        from frozenmm.segmentation.word_cells.segmentor import WordCellSegmentor

if installed('mmdet') and installed('mmseg'):
    with explained('mmseg'):
        from frozenmm.segmentation.fc_clip.mmseg_segmentor import OpenVocabularySegmentor
        from frozenmm.segmentation.plain_mask.mmseg_segmentor import PlainMaskSemanticSegmentor

if installed('mmseg'):
    with explained('mmseg'):
        # depth
        from frozenmm.reconstruction.mmseg_depth import (
            AffineDepthLoss,
            CorrectedDepthEstimator,
            FrozenDepthEstimator,
        )

        # training-free segmentation by words
        from frozenmm.segmentation.dense_clip.segmentor import DenseCLIPSegmentor

        # masks of phrases
        from frozenmm.segmentation.f_lmm.grounder import FrozenLMMGrounder
        from frozenmm.segmentation.f_lmm.head import AttentionUNetHead
        from frozenmm.segmentation.f_lmm.providers import LlavaEvidence, MadeUpEvidence
        from frozenmm.segmentation.f_lmm.refiner import SAMMaskRefiner

        # any frozen image encoder with any frozen text encoder
        from frozenmm.segmentation.fusioner.decoder import FusionerDecoder, LightFusionerDecoder
        from frozenmm.segmentation.fusioner.fusion import FusionTransformer
        from frozenmm.segmentation.fusioner.head import FusionerHead
        from frozenmm.segmentation.fusioner.losses import FusionerBCELoss
        from frozenmm.segmentation.fusioner.segmentor import FusionerSegmentor

        # any frozen model with deviations
        from frozenmm.segmentation.uncertainty import CappedEstimator
