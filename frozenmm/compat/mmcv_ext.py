"""A stand-in for `mmcv._ext`, so that mmdet and mmseg work on mmcv-lite.

`mmcv.ops` asks the compiled module for its functions when it is imported; mmcv-lite has the Python files but no
compiled module. The stand-in answers every name: with a plain torch function for the operators that the models of our
scope call (NMS, RoIAlign, focal loss), else with a function that raises when it is called. A real `mmcv._ext` is never
replaced.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as functional
from mmengine.logging import print_log
from torch import Tensor

from frozenmm.errors import MissingPackage
from frozenmm.version import document

NAME = 'mmcv._ext'


class MissingOperator(MissingPackage, NotImplementedError):
    """An operator that only a compiled mmcv has."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that greedy non-maximum suppression keeps, by falling score.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: boxes that overlap a kept one by more than this are dropped.
        offset: 0 or 1, added to widths and heights (1: coordinates are pixel indices).

    Returns:
        (M,) int64.
    """
    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].unbind(1)
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    keep = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        keep.append(i)
        rest = slice(i + 1, None)
        width = (torch.minimum(x2[i], x2[rest]) - torch.maximum(x1[i], x1[rest]) + offset).clamp(min=0)
        height = (torch.minimum(y2[i], y2[rest]) - torch.maximum(y1[i], y1[rest]) + offset).clamp(min=0)
        inter = width * height
        alive[rest] &= ~(inter / (areas[i] + areas[rest] - inter) > iou_threshold)
    return order[torch.tensor(keep, dtype=torch.long, device=boxes.device)]


def _axis_weights(start: Tensor, length: Tensor, bins: int, samples: int, size: int) -> Tensor:
    """Mean bilinear weights of one axis of RoIAlign: (N, bins, size), for regions of one sampling count."""
    offsets = (torch.arange(bins * samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    position = start[:, None] + offsets[None] * (length / bins)[:, None]
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    fraction = position - low
    weights = start.new_zeros(len(start), bins * samples, size)
    weights.scatter_add_(2, low[..., None], ((1 - fraction) * inside)[..., None])
    weights.scatter_add_(2, high[..., None], (fraction * inside)[..., None])
    return weights.view(len(start), bins, samples, size).mean(2)


def _roi_groups(rois: Tensor, bins: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool,
                size: Sequence[int]) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Image, indices, vertical and horizontal weights of RoIs that share an image and sampling counts."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (rois[:, 1:] * spatial_scale - shift).unbind(1)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = width.clamp(min=1.0), height.clamp(min=1.0)

    def count(length: Tensor, n: int) -> Tensor:
        if sampling_ratio > 0:
            return torch.full_like(length, sampling_ratio, dtype=torch.long)
        return (length / n).ceil().long().clamp(min=1)

    keys = torch.stack([rois[:, 0].long(), count(height, bins[0]), count(width, bins[1])], 1)
    for key in keys.unique(dim=0):
        index = (keys == key).all(1).nonzero().flatten()
        image, vertical, horizontal = key.tolist()
        yield (image, index,
               _axis_weights(y1[index], height[index], bins[0], vertical, size[0]),
               _axis_weights(x1[index], width[index], bins[1], horizontal, size[1]))


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Fill `output` (N, C, bins_h, bins_w) with average-pooled RoIAlign; each RoI is two interpolation matrices.

    Args follow mmcv's compiled function: `rois` (N, 5) as image index, x1, y1, x2, y2; `pool_mode` 1 is average.
    """
    if pool_mode != 1:
        raise MissingOperator('RoIAlign with pool_mode=\'max\' needs compiled mmcv operators; '
                              'use pool_mode=\'avg\'')
    bins = (aligned_height, aligned_width)
    for image, index, rows, columns in _roi_groups(rois, bins, spatial_scale, sampling_ratio, aligned,
                                                   input.shape[-2:]):
        output[index] = torch.einsum('nih,chw,njw->ncij', rows, input[image], columns)


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Add the gradient of `roi_align_forward` to `grad_input` (B, C, H, W): the transposed matrices."""
    bins = (aligned_height, aligned_width)
    for image, index, rows, columns in _roi_groups(rois, bins, spatial_scale, sampling_ratio, aligned,
                                                   grad_input.shape[-2:]):
        grad_input[image] += torch.einsum('nih,ncij,njw->chw', rows, grad_output[index], columns)


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Fill `output` (N, K) with the focal loss of every logit; mmdet asks for it on CUDA only.

    Args:
        input: (N, K) logits.
        target: (N,) int64 class index, K for background.
        weight: (K,) factor by target class, or empty.
        output: (N, K).
        gamma: focusing exponent.
        alpha: weight of positives.
    """
    positive, log_p, log_n = _focal_terms(input, target)
    loss = torch.where(positive, -alpha * (log_n.exp())**gamma * log_p, -(1 - alpha) * (log_p.exp())**gamma * log_n)
    output.copy_(loss * _focal_weight(weight, target))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """Fill `grad_input` (N, K) with the derivative of `sigmoid_focal_loss_forward` by its logits."""
    positive, log_p, log_n = _focal_terms(input, target)
    p, n = log_p.exp(), log_n.exp()
    grad = torch.where(positive, alpha * n**gamma * (gamma * p * log_p - n),
                       -(1 - alpha) * p**gamma * (gamma * n * log_n - p))
    grad_input.copy_(grad * _focal_weight(weight, target))


def _focal_terms(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which logits are positives, log p and log (1 - p)."""
    positive = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return positive, functional.logsigmoid(logits), functional.logsigmoid(-logits)


def _focal_weight(weight: Tensor, target: Tensor) -> Tensor | float:
    if weight.numel() == 0:
        return 1.0
    return torch.cat([weight, weight.new_ones(1)])[target][:, None]


def get_compiler_version() -> str:
    """What `mmcv.utils.collect_env()` reports; training logs and bug reports hold it."""
    return 'no compiled operators (mmcv-lite; frozenmm.compat stands in)'


def get_compiling_cuda_version() -> str:
    """What `mmcv.utils.collect_env()` reports, in mmcv's words for none."""
    return 'not available'


class StandIn(ModuleType):
    """The module object: known operators in torch, every other name a function that raises when called."""

    get_compiler_version = staticmethod(get_compiler_version)
    get_compiling_cuda_version = staticmethod(get_compiling_cuda_version)
    nms = staticmethod(nms)
    roi_align_forward = staticmethod(roi_align_forward)
    roi_align_backward = staticmethod(roi_align_backward)
    sigmoid_focal_loss_forward = staticmethod(sigmoid_focal_loss_forward)
    sigmoid_focal_loss_backward = staticmethod(sigmoid_focal_loss_backward)

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> None:
            raise MissingOperator(
                f'the operator {name!r} exists only in compiled mmcv, and mmcv-lite is installed. '
                'Models that need it (deformable convolution, rotated NMS, CARAFE, ...) need a build of mmcv 2.1.0 '
                f'with operators; {document("setup")} says how.')

        missing.__name__ = name
        return missing


def compiled_extension() -> Path | None:
    """The file of a real `mmcv._ext`, or None; found without importing mmcv."""
    spec = find_spec('mmcv')
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder, f'_ext{suffix}')
            if path.exists():
                return path
    return None


def install() -> bool:
    """Put the stand-in into `sys.modules` if mmcv is there without its compiled module; True when it did so."""
    if NAME in sys.modules or find_spec('mmcv') is None or compiled_extension() is not None:
        return False
    module = StandIn(NAME)
    # mmcv and mmengine look the module up with pkgutil and importlib, which ask for a spec
    module.__spec__ = ModuleSpec(NAME, loader=None)
    sys.modules[NAME] = module
    print_log('mmcv has no compiled operators: frozenmm.compat stands in for `mmcv._ext`', logger='current', level=10)
    return True
