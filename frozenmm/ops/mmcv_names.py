"""The operators of mmcv's compiled module that frozenmm serves, under mmcv's names and with its arguments.

`frozenmm.compat.mmcv_ext` hands them out where mmcv has no compiled operators, so that its modules run untouched on
every device. Arguments keep mmcv's names and order, because its Python code passes them either way.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from frozenmm.ops import boxes, deformable_convolution, focal_loss, regions
from frozenmm.ops.ms_deform_attn import ms_deform_attn


def _real(value: Tensor) -> torch.dtype:
    """Locations and weights are float32 for values of half precision: see `ms_deform_attn`."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                           sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Deformable attention, (B, Q, H * D) in the type of `value`.

    Args:
        value: (B, S, H, D), float32, float64, float16 or bfloat16.
        value_spatial_shapes: (L, 2) int32 or int64.
        value_level_start_index: (L,) int32 or int64.
        sampling_locations: (B, Q, H, L, P, 2), any floating type.
        attention_weights: (B, Q, H, L, P).
        im2col_step: not used; no operator of ours cuts the batch.
    """
    real = _real(value)
    return ms_deform_attn(value, value_spatial_shapes.long(), value_level_start_index.long(),
                          sampling_locations.to(real), attention_weights.to(real))


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                            sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor,
                            grad_value: Tensor, grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    """Fill `grad_value`, `grad_sampling_loc` and `grad_attn_weight`, which have the shapes of what they belong to."""
    real = _real(value)
    found = torch.ops.frozenmm.ms_deform_attn_bwd(
        grad_output.to(value.dtype), value, value_spatial_shapes.long(), value_level_start_index.long(),
        sampling_locations.to(real), attention_weights.to(real), torch.are_deterministic_algorithms_enabled())
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), found):
        target.copy_(gradient)


def get_compiler_version() -> str:
    """What `mmcv.utils.collect_env()` reports; training logs and bug reports hold it."""
    return 'no compiled operators (mmcv-lite; frozenmm.ops serves its names)'


def get_compiling_cuda_version() -> str:
    """What `mmcv.utils.collect_env()` reports, in mmcv's words for none."""
    return 'not available'


OPERATORS: Mapping[str, Callable] = {function.__name__: function for function in (
    ms_deform_attn_forward, ms_deform_attn_backward, get_compiler_version, get_compiling_cuda_version,
    boxes.nms, boxes.softnms, boxes.nms_match, boxes.bbox_overlaps,
    regions.roi_align_forward, regions.roi_align_backward, regions.roi_pool_forward, regions.roi_pool_backward,
    focal_loss.sigmoid_focal_loss_forward, focal_loss.sigmoid_focal_loss_backward,
    focal_loss.softmax_focal_loss_forward, focal_loss.softmax_focal_loss_backward,
    deformable_convolution.modulated_deform_conv_forward, deformable_convolution.modulated_deform_conv_backward,
    deformable_convolution.deform_conv_forward, deformable_convolution.deform_conv_backward_input,
    deformable_convolution.deform_conv_backward_parameters)}
