"""Mask ensembling: from query scores and low-resolution mask logits to results at output size, in bounded memory."""
from __future__ import annotations

from .mask_geometry import MaskGeometry
from .mask_instance import InstanceMasks, RunLengthMask, encode_rle, mask_ensemble_instance, pack_masks, unpack_masks
from .mask_panoptic import MaskOwners, PanopticMap, PanopticSegment, mask_ensemble_panoptic, mask_owners
from .mask_semantic import SemanticMap, mask_ensemble_semantic

__all__ = [
    'InstanceMasks', 'MaskGeometry', 'MaskOwners', 'PanopticMap', 'PanopticSegment', 'RunLengthMask', 'SemanticMap',
    'encode_rle', 'mask_ensemble_instance', 'mask_ensemble_panoptic', 'mask_ensemble_semantic', 'mask_owners',
    'pack_masks', 'unpack_masks',
]
