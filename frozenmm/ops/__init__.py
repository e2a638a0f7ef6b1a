"""Operators for dense vision: deformable attention, and masks.

Every operator is complete in torch; `python -m frozenmm.ops.build` compiles kernels that the dispatcher then prefers;
`python -m frozenmm.env` says which implementation each operator uses and why.
"""
from __future__ import annotations

from frozenmm.ops import loader
from frozenmm.ops.accelerate import accelerate
from frozenmm.ops.deformable_attention import MultiScaleDeformableAttention
from frozenmm.ops.loader import backend
from frozenmm.ops.mask_ensemble import (
    MaskGeometry,
    encode_rle,
    mask_ensemble_instance,
    mask_ensemble_panoptic,
    mask_ensemble_semantic,
    mask_owners,
    pack_masks,
    unpack_masks,
)
from frozenmm.ops.mask_pool import mask_pool
from frozenmm.ops.ms_deform_attn import ms_deform_attn, ms_deform_attn_fused
from frozenmm.ops.optimize import optimize, restore

if not loader.being_built():
    loader.load_at_import()

__all__ = [
    'MaskGeometry', 'MultiScaleDeformableAttention', 'accelerate', 'backend', 'encode_rle',
    'mask_ensemble_instance', 'mask_ensemble_panoptic', 'mask_ensemble_semantic', 'mask_owners', 'mask_pool',
    'ms_deform_attn', 'ms_deform_attn_fused', 'optimize', 'pack_masks', 'restore', 'unpack_masks',
]
