"""Metrics; they know tensors and data samples, not systems. Those that build on mmdet are there when mmdet is."""
from frozenmm.evaluation.aligned_depth import AlignedDepthMetric
from frozenmm.evaluation.average_recall import AverageMaskRecall
from frozenmm.evaluation.episodic_iou import EpisodicIoUMetric
from frozenmm.evaluation.federated_ap import LVISBoxAP, LVISMaskAP
from frozenmm.evaluation.panoptic_quality import PanopticQuality
from frozenmm.evaluation.recall import MaskRecallMetric
from frozenmm.evaluation.referring_iou import ReferringIoU
from frozenmm.evaluation.semantic_iou import SemanticIoU
from frozenmm.evaluation.uncertainty import UncertaintyMetric
from frozenmm.registry import installed

__all__ = ['AlignedDepthMetric', 'AverageMaskRecall', 'EpisodicIoUMetric', 'LVISBoxAP', 'LVISMaskAP',
           'MaskRecallMetric', 'PanopticQuality', 'ReferringIoU', 'SemanticIoU', 'UncertaintyMetric']

if installed('mmdet'):
    from frozenmm.evaluation.split_coco import SplitCocoMetric
    __all__ += ['SplitCocoMetric']
