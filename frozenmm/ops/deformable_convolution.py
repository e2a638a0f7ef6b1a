"""Deformable convolution, plain and modulated, in torch, with the arguments of mmcv's compiled functions.

Every output cell samples the map at its kernel's taps, each moved by an offset, and weighs them (DCNv2). One
`grid_sample` gathers the columns, one matrix product per group does the rest; gradients are those of that computation.

Source: Dai et al., Deformable Convolutional Networks (ICCV 2017); Zhu et al., Deformable ConvNets v2 (CVPR 2019).
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution under mmcv's names."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int

    @classmethod
    def of_plain(cls, *, kH: int, kW: int, dH: int, dW: int, padH: int, padW: int, dilationH: int,
                 dilationW: int) -> Geometry:
        """The same, from the names of the plain form."""
        return cls(kH, kW, dH, dW, padH, padW, dilationH, dilationW)


def _positions(offset: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Rows and columns of the map that are sampled, (B, G, K, h, w) each, from offsets (B, G, K, 2, h, w)."""
    h, w = offset.shape[-2:]

    def steps(count: int, step: int, start: int) -> Tensor:
        return torch.arange(count, device=offset.device, dtype=offset.dtype) * step + start
    rows = steps(geometry.kernel_h, geometry.dilation_h, -geometry.pad_h)[:, None] + \
        steps(h, geometry.stride_h, 0)
    columns = steps(geometry.kernel_w, geometry.dilation_w, -geometry.pad_w)[:, None] + \
        steps(w, geometry.stride_w, 0)
    rows = rows.repeat_interleave(geometry.kernel_w, 0)[:, :, None]
    columns = columns.repeat(geometry.kernel_h, 1)[:, None]
    return offset[:, :, :, 0] + rows, offset[:, :, :, 1] + columns


def deformable_convolution(input: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, *, geometry: Geometry,
                           groups: int, deform_groups: int) -> Tensor:
    """A convolution whose taps are moved and, with a mask, weighed.

    Args:
        input: (B, C, H, W).
        offset: (B, deform_groups * K * 2, h, w) in cells, (y, x) for each of K = kernel_h * kernel_w taps.
        mask: (B, deform_groups * K, h, w), or None for ones.
        weight: (O, C / groups, kernel_h, kernel_w).
        geometry: kernel, stride, padding and dilation.
        groups: channel groups of the convolution.
        deform_groups: channel groups with offsets of their own.

    Returns:
        (B, O, h, w). Taps outside the map read zeros.
    """
    batch, channels, height, width = input.shape
    taps, (h, w) = geometry.kernel_h * geometry.kernel_w, offset.shape[-2:]
    y, x = _positions(offset.view(batch, deform_groups, taps, 2, h, w), geometry)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    columns = functional.grid_sample(input.reshape(batch * deform_groups, channels // deform_groups, height, width),
                                     grid.view(batch * deform_groups, taps * h, w, 2), mode='bilinear',
                                     padding_mode='zeros', align_corners=False)
    columns = columns.view(batch, deform_groups, channels // deform_groups, taps, h, w)
    if mask is not None:
        columns = columns * mask.view(batch, deform_groups, 1, taps, h, w)
    kernels = weight.reshape(groups, weight.shape[0] // groups, -1)
    return (kernels @ columns.reshape(batch, groups, -1, h * w)).view(batch, weight.shape[0], h, w)


def _gradients(tensors: list[Tensor], grad_output: Tensor, *, geometry: Geometry, groups: int,
               deform_groups: int) -> tuple[Tensor, ...]:
    """Gradients of a convolution for input, offset, mask and weight; three tensors where there is no mask."""
    with torch.enable_grad():
        leaves = [_real(tensor).detach().requires_grad_() for tensor in tensors]
        mask = leaves[2] if len(leaves) == 4 else None
        out = deformable_convolution(leaves[0], leaves[1], mask, leaves[-1], geometry=geometry, groups=groups,
                                     deform_groups=deform_groups)
        return torch.autograd.grad(out, leaves, _real(grad_output))


def _real(tensor: Tensor) -> Tensor:
    """Half precision is computed in float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                  mask: Tensor, output: Tensor, columns: Tensor, *, group: int, deformable_group: int,
                                  with_bias: bool, **sizes: int) -> None:
    """Fill `output` (B, O, h, w); `ones` and `columns` are mmcv's working memory and not used.

    Args:
        input: (B, C, H, W).
        weight: (O, C / group, kernel_h, kernel_w).
        bias: (O,), read `with_bias`.
        ones: not used.
        offset: see `deformable_convolution`, as `mask`.
        mask: factors of the taps.
        output: (B, O, h, w).
        columns: not used.
        group: channel groups of the convolution.
        deformable_group: channel groups with offsets of their own.
        with_bias: add the bias.
        sizes: those of `Geometry`.
    """
    found = deformable_convolution(_real(input), _real(offset), _real(mask), _real(weight),
                                   geometry=Geometry(**sizes), groups=group, deform_groups=deformable_group)
    output.copy_(found + _real(bias)[:, None, None] if with_bias else found)


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                   mask: Tensor, columns: Tensor, *gradients: Tensor, group: int,
                                   deformable_group: int, with_bias: bool, **sizes: int) -> None:
    """Fill the gradients of `modulated_deform_conv_forward`.

    Args:
        input: see there, as the tensors up to `columns`.
        weight: (O, C / group, kernel_h, kernel_w).
        bias: not read.
        ones: not used.
        offset: offsets of the taps.
        mask: factors of the taps.
        columns: not used.
        gradients: those of input, weight, bias, offset and mask, to be filled, then that of the output.
        group: channel groups of the convolution.
        deformable_group: channel groups with offsets of their own.
        with_bias: fill the gradient of the bias.
        sizes: those of `Geometry`.
    """
    by_input, by_weight, by_bias, by_offset, by_mask, grad_output = gradients
    found = _gradients([input, offset, mask, weight], grad_output, geometry=Geometry(**sizes), groups=group,
                       deform_groups=deformable_group)
    for target, value in zip((by_input, by_offset, by_mask, by_weight), found):
        target.copy_(value)
    if with_bias:
        by_bias.copy_(_real(grad_output).sum((0, 2, 3)))


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
                        *, group: int, deformable_group: int, im2col_step: int, **sizes: int) -> None:
    """Fill `output` (B, O, h, w) with the convolution without masks and bias; see `modulated_deform_conv_forward`."""
    output.copy_(deformable_convolution(_real(input), _real(offset), None, _real(weight),
                                        geometry=Geometry.of_plain(**sizes), groups=group,
                                        deform_groups=deformable_group))


def deform_conv_backward_input(input: Tensor, offset: Tensor, gradOutput: Tensor, gradInput: Tensor,
                               gradOffset: Tensor, weight: Tensor, columns: Tensor, *, group: int,
                               deformable_group: int, im2col_step: int, **sizes: int) -> None:
    """Fill the gradients of `deform_conv_forward` for its input and offsets."""
    by_input, by_offset, _ = _gradients([input, offset, weight], gradOutput, geometry=Geometry.of_plain(**sizes),
                                        groups=group, deform_groups=deformable_group)
    gradInput.copy_(by_input)
    gradOffset.copy_(by_offset)


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, gradOutput: Tensor, gradWeight: Tensor,
                                    columns: Tensor, ones: Tensor, *, group: int, deformable_group: int, scale: float,
                                    im2col_step: int, **sizes: int) -> None:
    """Add `scale` times the gradient of `deform_conv_forward` for its weight to `gradWeight`, which has its shape."""
    weight = torch.zeros_like(gradWeight)  # the output is linear in it, so its value does not matter
    by_weight = _gradients([input, offset, weight], gradOutput, geometry=Geometry.of_plain(**sizes), groups=group,
                           deform_groups=deformable_group)[-1]
    gradWeight.add_(by_weight.to(gradWeight.dtype), alpha=scale)
