"""Multi-scale deformable attention: the definition in torch, and the operators `frozenmm::ms_deform_attn[_fused]`.

A query of one head reads L * P points of L feature maps with bilinear weights (zeros outside a map,
`align_corners=False`) and sums them with attention weights. The plain operator takes sampling locations and weights;
the fused one takes what the linear layers give (offsets, logits) and the reference points, and does the softmax and the
locations inside.

The functions here are the definition, in any precision and on any device; compiled kernels are added to the same
operators by the libraries that `frozenmm.ops.loader` loads. Locations and weights stay float32 whatever the type of
the values: at a map 128 wide, bfloat16 locations alone put an error of 16 % on the output.

Shape letters: B images, S rows (the sum of h * w over the levels), H heads, D channels of a head, Q queries, L levels,
P points.

Source: Zhu et al., Deformable DETR (2021), equations 2 and 3.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_library = torch.library.Library('frozenmm', 'FRAGMENT')  # lives as long as the process

_MAPS = 'Tensor value, Tensor spatial_shapes, Tensor level_start_index'
SCHEMAS = {
    'ms_deform_attn': f'({_MAPS}, Tensor sampling_locations, Tensor attention_weights) -> Tensor',
    'ms_deform_attn_bwd': f'(Tensor grad, {_MAPS}, Tensor sampling_locations, Tensor attention_weights, '
                          'bool deterministic) -> (Tensor, Tensor, Tensor)',
    'ms_deform_attn_fused': f'({_MAPS}, Tensor reference_points, Tensor sampling_offsets, Tensor attention_logits) '
                            '-> Tensor',
    'ms_deform_attn_fused_bwd': f'(Tensor grad, {_MAPS}, Tensor reference_points, Tensor sampling_offsets, '
                                'Tensor attention_logits, bool reference_grad, bool deterministic) '
                                '-> (Tensor, Tensor, Tensor, Tensor)',
}
_VALUE_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


# ---------------------------------------------------------------------------------------------------- public
def ms_deform_attn(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling_locations: Tensor,
                   attention_weights: Tensor) -> Tensor:
    """Attention-weighted sum of bilinear samples of L feature maps.

    Args:
        value: (B, S, H, D) float32, float64, bfloat16 or float16: the maps, flattened row by row, level after level.
        spatial_shapes: (L, 2) int64, (height, width) of each map.
        level_start_index: (L,) int64, the first row of each map: the exclusive prefix sum of height * width.
        sampling_locations: (B, Q, H, L, P, 2) as (x, y), 0 to 1 across the map; float32 (float64 with float64 values).
            Points outside read zeros; NaN and infinite points are dropped.
        attention_weights: (B, Q, H, L, P), same type as the locations, already normalised.

    Returns:
        (B, Q, H * D) in the type of `value`, head after head. Differentiable once with respect to `value`,
        `sampling_locations` and `attention_weights`.

    Raises:
        ValueError: shapes or devices do not fit together.
        TypeError: a tensor has the wrong type.
        RuntimeError: `spatial_shapes` and `level_start_index` do not describe the rows of `value`.

    >>> shapes, start = torch.tensor([[1, 2]]), torch.tensor([0])
    >>> value = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1)              # a map of two cells
    >>> middle = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 1, 2)         # between them
    >>> ms_deform_attn(value, shapes, start, middle, torch.ones(1, 1, 1, 1, 1))
    tensor([[[15.]]])
    """
    check_inputs('ms_deform_attn', value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    return torch.ops.frozenmm.ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations,
                                             attention_weights)


def ms_deform_attn_fused(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, reference_points: Tensor,
                         sampling_offsets: Tensor, attention_logits: Tensor) -> Tensor:
    """Deformable attention from raw offsets and logits.

    The weights are the softmax of the logits over all L * P points. The locations are `reference + offset / (w, h)` for
    reference points, and `centre + offset / P * size / 2` for reference boxes.

    Args:
        value: (B, S, H, D), as in `ms_deform_attn`.
        spatial_shapes: (L, 2) int64, (height, width) of each map.
        level_start_index: (L,) int64, the first row of each map.
        reference_points: (B, Q, L, 2) as (x, y), or (B, Q, L, 4) as (centre x, centre y, width, height), 0 to 1.
        sampling_offsets: (B, Q, H, L, P, 2), float32 (float64 with float64 values), as are the other two.
        attention_logits: (B, Q, H, L * P).

    Returns:
        (B, Q, H * D) in the type of `value`. Differentiable once with respect to `value`, `reference_points`,
        `sampling_offsets` and `attention_logits`.

    Raises:
        ValueError: shapes or devices do not fit together.
        TypeError: a tensor has the wrong type.
        RuntimeError: `spatial_shapes` and `level_start_index` do not describe the rows of `value`.
    """
    check_inputs('ms_deform_attn_fused', value, spatial_shapes, level_start_index, sampling_offsets, attention_logits,
                 reference_points)
    return torch.ops.frozenmm.ms_deform_attn_fused(value, spatial_shapes, level_start_index, reference_points,
                                                   sampling_offsets, attention_logits)


# ---------------------------------------------------------------------------------------------------- checks
def _expect_shape(op: str, name: str, tensor: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != wanted:
        raise ValueError(f'{op}: {name} must have shape {list(wanted)}, got {list(tensor.shape)}')


def check_inputs(op: str, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, points: Tensor,
                 weights: Tensor, reference: Tensor | None = None) -> None:
    """Check what can be told without reading numbers; `reference` is None for the plain operator.

    Args:
        op: name of the operator, the first word of an error.
        value: (B, S, H, D).
        spatial_shapes: (L, 2).
        level_start_index: (L,).
        points: (B, Q, H, L, P, 2), locations or offsets.
        weights: (B, Q, H, L, P), or logits (B, Q, H, L * P).
        reference: (B, Q, L, 2) or (B, Q, L, 4).

    Raises:
        ValueError: shapes or devices do not fit together.
        TypeError: a tensor has the wrong type.
    """
    refuse_forward_mode(value, points, weights, *(() if reference is None else (reference, )))
    fused = reference is not None
    points_name, weights_name = ('sampling_offsets', 'attention_logits') if fused else \
        ('sampling_locations', 'attention_weights')
    if value.dim() != 4:
        raise ValueError(f'{op}: value must have 4 axes [B, S, H, D], got {list(value.shape)}')
    if points.dim() != 6 or points.shape[-1] != 2:
        raise ValueError(f'{op}: {points_name} must have shape [B, Q, H, L, P, 2], got {list(points.shape)}')
    batch, queries, heads, levels, count, _ = points.shape
    if value.shape[3] < 1 or heads < 1 or levels < 1 or count < 1:
        raise ValueError(f'{op}: heads, channels, levels and points must be at least 1; value is {list(value.shape)}, '
                         f'{points_name} is {list(points.shape)}')
    _expect_shape(op, 'spatial_shapes', spatial_shapes, (levels, 2))
    _expect_shape(op, 'level_start_index', level_start_index, (levels, ))
    _expect_shape(op, points_name, points, (value.shape[0], queries, value.shape[2], levels, count, 2))
    _expect_shape(op, weights_name, weights,
                  (batch, queries, heads, levels * count) if fused else (batch, queries, heads, levels, count))
    tensors = {'spatial_shapes': spatial_shapes, 'level_start_index': level_start_index, points_name: points,
               weights_name: weights}
    if reference is not None:
        if reference.dim() != 4 or reference.shape[-1] not in (2, 4):
            raise ValueError(f'{op}: reference_points must have shape [B, Q, L, 2] or [B, Q, L, 4], '
                             f'got {list(reference.shape)}')
        _expect_shape(op, 'reference_points', reference, (batch, queries, levels, reference.shape[-1]))
        tensors['reference_points'] = reference
    _check_types(op, value, tensors)


def _check_types(op: str, value: Tensor, tensors: dict[str, Tensor]) -> None:
    if value.dtype not in _VALUE_TYPES:
        raise TypeError(f'{op}: value must be float32, float64, bfloat16 or float16, got {value.dtype}')
    real = torch.float64 if value.dtype == torch.float64 else torch.float32
    autocast = torch.is_autocast_enabled(value.device.type)
    for name, tensor in tensors.items():
        if tensor.device != value.device:
            raise ValueError(f'{op}: {name} is on {tensor.device} but value is on {value.device}; move it there')
        wanted = torch.int64 if name in ('spatial_shapes', 'level_start_index') else real
        if tensor.dtype == wanted or (autocast and wanted is real and tensor.dtype.is_floating_point):
            continue
        raise TypeError(f'{op}: {name} must be {wanted} (value is {value.dtype}), got {tensor.dtype}')


def _sizes(op: str, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor) -> list[tuple[int, int]]:
    """The maps' (height, width), checked against the rows of `value`."""
    sizes = [(int(h), int(w)) for h, w in spatial_shapes.tolist()]
    total = 0
    for level, ((h, w), start) in enumerate(zip(sizes, level_start_index.tolist())):
        if h <= 0 or w <= 0:
            raise RuntimeError(f'{op}: spatial_shapes must be positive, level {level} is {h} x {w}')
        if start != total:
            raise RuntimeError(f'{op}: level_start_index must be the exclusive prefix sum of height * width; '
                               f'level {level} must start at {total}, got {start}')
        total += h * w
    if total != value.shape[1]:
        raise RuntimeError(f'{op}: value has {value.shape[1]} rows but spatial_shapes add up to {total}')
    return sizes


# ------------------------------------------------------------------------------------------------ definition
def _inside(locations: Tensor, spatial_shapes: Tensor) -> Tensor:
    """Whether each location (B, Q, H, L, P, 2) can touch its map; false for NaN and infinity."""
    size = spatial_shapes.flip(-1).to(locations.dtype)[:, None]
    cells = locations * size - 0.5
    return ((cells > -1) & (cells < size)).all(-1)


def _level_inputs(value: Tensor, locations: Tensor, weights: Tensor, level: int, start: int,
                  size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """One level as `grid_sample` wants it: maps (BH, D, h, w), grid (BH, Q, P, 2), weights (BH, 1, Q, P)."""
    batch, _, heads, channels = value.shape
    h, w = size
    maps = value[:, start:start + h * w].permute(0, 2, 3, 1).reshape(batch * heads, channels, h, w)
    grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
    return maps, grid, weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]


def _drop_outside(locations: Tensor, weights: Tensor, spatial_shapes: Tensor) -> tuple[Tensor, Tensor]:
    """Dropped samples get weight 0 and a location that is far outside, so that nothing is computed from NaN."""
    inside = _inside(locations, spatial_shapes)
    return torch.where(inside[..., None], locations, -2.0), torch.where(inside, weights, 0.0)


def _forward(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor,
             op: str = 'ms_deform_attn') -> Tensor:
    sizes = _sizes(op, value, spatial_shapes, level_start_index)
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    real = value.to(locations.dtype)
    total = real.new_zeros(batch * heads, channels, queries)
    if total.numel():
        locations, weights = _drop_outside(locations, weights, spatial_shapes)
        start = 0
        for level, (h, w) in enumerate(sizes):
            maps, grid, weight = _level_inputs(real, locations, weights, level, start, (h, w))
            samples = F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
            total += (samples * weight).sum(-1)
            start += h * w
    out = total.view(batch, heads, channels, queries).permute(0, 3, 1, 2)
    return out.reshape(batch, queries, heads * channels).to(value.dtype).contiguous()


def _backward(grad: Tensor, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor,
              weights: Tensor, deterministic: bool, op: str = 'ms_deform_attn_bwd') -> tuple[Tensor, Tensor, Tensor]:
    sizes = _sizes(op, value, spatial_shapes, level_start_index)
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    real = value.to(locations.dtype)
    grad_value, grad_locations, grad_weights = (t.new_zeros(t.shape) for t in (real, locations, weights))
    if not grad.numel():
        return grad_value.to(value.dtype), grad_locations, grad_weights
    locations, weights = _drop_outside(locations, weights, spatial_shapes)
    incoming = grad.to(real.dtype).view(batch, queries, heads, channels).permute(0, 2, 3, 1).flatten(0, 1)[..., None]
    start = 0
    for level, (h, w) in enumerate(sizes):
        maps, grid, weight = _level_inputs(real, locations, weights, level, start, (h, w))
        samples = F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
        by_weight = (samples * incoming).sum(1).view(batch, heads, queries, -1)
        grad_weights[:, :, :, level] = by_weight.transpose(1, 2)
        by_map, by_grid = torch.ops.aten.grid_sampler_2d_backward(incoming * weight, maps, grid, 0, 0, False,
                                                                  [True, True])
        rows = by_map.view(batch, heads, channels, h * w).permute(0, 3, 1, 2)
        grad_value[:, start:start + h * w] = rows
        grad_locations[:, :, :, level] = 2 * by_grid.view(batch, heads, queries, -1, 2).transpose(1, 2)
        start += h * w
    return grad_value.to(value.dtype), grad_locations, grad_weights


def _offset_scale(spatial_shapes: Tensor, reference: Tensor, points: int) -> Tensor:
    """What an offset is multiplied with to give a shift of the location, broadcastable to (B, Q, H, L, P, 2)."""
    if reference.shape[-1] == 2:
        return 1 / spatial_shapes.flip(-1).to(reference.dtype)[:, None]
    return reference[:, :, None, :, None, 2:] * (0.5 / points)


def _locate(spatial_shapes: Tensor, reference: Tensor, offsets: Tensor) -> Tensor:
    scale = _offset_scale(spatial_shapes, reference, offsets.shape[4])
    return reference[:, :, None, :, None, :2] + offsets * scale


def _forward_fused(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, reference: Tensor,
                   offsets: Tensor, logits: Tensor) -> Tensor:
    locations = _locate(spatial_shapes, reference, offsets)
    weights = logits.softmax(-1).view(offsets.shape[:-1])
    return _forward(value, spatial_shapes, level_start_index, locations, weights, 'ms_deform_attn_fused')


def _backward_fused(grad: Tensor, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, reference: Tensor,
                    offsets: Tensor, logits: Tensor, reference_grad: bool,
                    deterministic: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    locations = _locate(spatial_shapes, reference, offsets)
    weights = logits.softmax(-1)
    grad_value, by_location, by_weight = _backward(grad, value, spatial_shapes, level_start_index, locations,
                                                   weights.view(offsets.shape[:-1]), deterministic,
                                                   'ms_deform_attn_fused_bwd')
    by_weight = by_weight.flatten(-2)
    grad_logits = weights * (by_weight - (weights * by_weight).sum(-1, keepdim=True))
    grad_offsets = by_location * _offset_scale(spatial_shapes, reference, offsets.shape[4])
    if not reference_grad:
        return grad_value, reference.new_empty(0), grad_offsets.contiguous(), grad_logits.contiguous()
    grad_reference = by_location.sum((2, 4))
    if reference.shape[-1] == 4:
        by_size = (by_location * offsets * (0.5 / offsets.shape[4])).sum((2, 4))
        grad_reference = torch.cat([grad_reference, by_size], -1)
    return grad_value, grad_reference.contiguous(), grad_offsets.contiguous(), grad_logits.contiguous()


# ---------------------------------------------------------------------------------------------- registration
def _fake(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    check_inputs('ms_deform_attn', value, spatial_shapes, level_start_index, points, weights)
    return value.new_empty(points.shape[0], points.shape[1], value.shape[2] * value.shape[3])


def _fake_fused(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, reference: Tensor, points: Tensor,
                weights: Tensor) -> Tensor:
    check_inputs('ms_deform_attn_fused', value, spatial_shapes, level_start_index, points, weights, reference)
    return value.new_empty(points.shape[0], points.shape[1], value.shape[2] * value.shape[3])


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _fake_backward(grad: Tensor, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, points: Tensor,
                   weights: Tensor, deterministic: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _like(value), _like(points), _like(weights)


def _fake_backward_fused(grad: Tensor, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor,
                         reference: Tensor, points: Tensor, weights: Tensor, reference_grad: bool,
                         deterministic: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    by_reference = _like(reference) if reference_grad else reference.new_empty(0)
    return _like(value), by_reference, _like(points), _like(weights)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    by_value, by_points, by_weights = torch.ops.frozenmm.ms_deform_attn_bwd(
        grad, *ctx.saved_tensors, torch.are_deterministic_algorithms_enabled())
    return by_value, None, None, by_points, by_weights


def _autograd_fused(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad[3]
    by_value, by_reference, by_points, by_weights = torch.ops.frozenmm.ms_deform_attn_fused_bwd(
        grad, *ctx.saved_tensors, wanted, torch.are_deterministic_algorithms_enabled())
    return by_value, None, None, by_reference if wanted else None, by_points, by_weights


def refuse_forward_mode(*tensors: Tensor) -> None:
    """Refuse `torch.func.jvp`, for which a custom operator would silently give zeros.

    Raises:
        RuntimeError: a tensor carries a tangent.
    """
    forward_ad = torch.autograd.forward_ad
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise RuntimeError('the operators of frozenmm have no forward-mode derivatives (torch.func.jvp); use backward, '
                           'torch.func.vjp, or finite differences')


def _refuse_twice(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError('ms_deform_attn is differentiable once; its gradient has no gradient. Call backward with '
                       'create_graph=False, or take second derivatives by finite differences')


def _autocast(name: str, key: str) -> Callable[..., Tensor]:
    """Under autocast, values keep the type they come in; locations, offsets and weights become float32."""
    excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def run(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, *points: Tensor) -> Tensor:
        real = torch.float64 if value.dtype == torch.float64 else torch.float32
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            return getattr(torch.ops.frozenmm, name)(value, spatial_shapes, level_start_index,
                                                     *(p.to(real) for p in points))

    return run


def _register() -> None:
    implementations: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        'ms_deform_attn': (_forward, _fake),
        'ms_deform_attn_bwd': (_backward, _fake_backward),
        'ms_deform_attn_fused': (_forward_fused, _fake_fused),
        'ms_deform_attn_fused_bwd': (_backward_fused, _fake_backward_fused)}
    for name, schema in SCHEMAS.items():
        torch_path, fake = implementations[name]
        _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag, ))
        _library.impl(name, torch_path, 'CompositeExplicitAutograd')
        torch.library.register_fake(f'frozenmm::{name}', fake, lib=_library)
    for name, formula in (('ms_deform_attn', _autograd), ('ms_deform_attn_fused', _autograd_fused)):
        torch.library.register_autograd(f'frozenmm::{name}', formula, setup_context=_save, lib=_library)
        torch.library.register_autograd(f'frozenmm::{name}_bwd', _refuse_twice, lib=_library)
        for key in ('AutocastCPU', 'AutocastCUDA'):
            _library.impl(name, _autocast(name, key), key)


_register()
