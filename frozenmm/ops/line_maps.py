"""Depth maps corrected by lines that are known at the nodes of a coarse grid."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .mask_library import _LIBRARY, define_op


def line_maps(depth: Tensor, scale: Tensor, shift: Tensor, intercept: Tensor, slope: Tensor, rows: Tensor,
              columns: Tensor) -> Tensor:
    """max(b + a (s d + t), 0), the lines (b, a) interpolated between nodes; 0 has no gradient where it was cut.

    Args:
        depth: (F, H, W) float32, without gradient.
        scale: (F, ) float32.
        shift: (F, ) float32.
        intercept: (F, R, C) float64, b at the nodes.
        slope: (F, R, C) float64, a at the nodes.
        rows: (H, R) float64, weights of the nodes' rows at every row of the map.
        columns: (W, C) float64, likewise for columns.

    Returns:
        (F, H, W) float32; gradients go to scale, shift, intercept and slope.

    Raises:
        ValueError: shapes that do not fit.

    Source: FrozenRecon, ICCV 2023, section 3.2 (locally weighted linear regression).
    """
    frames, height, width = depth.shape if depth.ndim == 3 else (0, 0, 0)
    nodes = (frames, rows.shape[-1], columns.shape[-1])
    if (depth.ndim != 3 or tuple(scale.shape) != (frames, ) or tuple(shift.shape) != (frames, )
            or tuple(intercept.shape) != nodes or tuple(slope.shape) != nodes
            or tuple(rows.shape) != (height, nodes[1]) or tuple(columns.shape) != (width, nodes[2])):
        raise ValueError('line_maps: expected depth (F, H, W), scale and shift (F, ), intercept and slope (F, R, C), '
                         f'rows (H, R) and columns (W, C), got '
                         f'{[tuple(x.shape) for x in (depth, scale, shift, intercept, slope, rows, columns)]}')
    return torch.ops.frozenmm.line_maps(depth, scale, shift, intercept, slope, rows, columns)


def _lines(depth: Tensor, scale: Tensor, shift: Tensor, intercept: Tensor, slope: Tensor, rows: Tensor,
           columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    spread = [(rows @ nodes @ columns.mT).to(depth.dtype) for nodes in (intercept, slope)]
    return scale[:, None, None] * depth + shift[:, None, None], spread[0], spread[1]


def maps_definition(depth: Tensor, scale: Tensor, shift: Tensor, intercept: Tensor, slope: Tensor, rows: Tensor,
                    columns: Tensor) -> Tensor:
    """Plain torch path of `frozenmm::line_maps`."""
    line, intercepts, slopes = _lines(depth, scale, shift, intercept, slope, rows, columns)
    values = intercepts + slopes * line
    return torch.where(values < 0, torch.zeros_like(values), values)


def maps_backward_definition(grad: Tensor, depth: Tensor, scale: Tensor, shift: Tensor, intercept: Tensor,
                             slope: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Plain torch path of `frozenmm::line_maps_backward`: gradients by scale, shift, intercept and slope."""
    line, intercepts, slopes = _lines(depth, scale, shift, intercept, slope, rows, columns)
    grad = torch.where(intercepts + slopes * line < 0, torch.zeros_like(grad), grad).double()
    through = grad * slopes
    by_slope = rows.mT @ (grad * line) @ columns
    return ((through * depth).sum((1, 2)).to(scale), through.sum((1, 2)).to(shift), rows.mT @ grad @ columns, by_slope)


def _fake(depth: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(depth)


def _backward_fake(grad: Tensor, depth: Tensor, scale: Tensor, shift: Tensor, intercept: Tensor, slope: Tensor,
                   rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(scale), torch.empty_like(shift), torch.empty_like(intercept), torch.empty_like(slope)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return None, *torch.ops.frozenmm.line_maps_backward(grad.contiguous(), *ctx.saved_tensors), None, None


_ARGUMENTS = 'Tensor depth, Tensor scale, Tensor shift, Tensor intercept, Tensor slope, Tensor rows, Tensor columns'
define_op(f'line_maps({_ARGUMENTS}) -> Tensor', maps_definition, _fake)
define_op(f'line_maps_backward(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)',
          maps_backward_definition, _backward_fake)
torch.library.register_autograd('frozenmm::line_maps', _backward, setup_context=_setup_context, lib=_LIBRARY)
