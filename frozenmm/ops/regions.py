"""RoIAlign and RoIPool in torch, with the arguments of mmcv's compiled functions.

`rois` are (N, 5): index of the image, x1, y1, x2, y2 in pixels of the picture; `spatial_scale` brings them onto the
map.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def _positions(start: Tensor, length: Tensor, bins: int, samples: int) -> Tensor:
    """Where RoIAlign samples one axis: (N, bins * samples), in cells."""
    offsets = (torch.arange(bins * samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    return start[:, None] + offsets[None] * (length / bins)[:, None]


def _sample_weights(position: Tensor, size: int) -> Tensor:
    """Bilinear weights (..., size) of positions (...) along one axis; none more than a cell outside."""
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    fraction = position - low
    weights = position.new_zeros(*position.shape, size)
    weights.scatter_add_(-1, low[..., None], ((1 - fraction) * inside)[..., None])
    return weights.scatter_add_(-1, high[..., None], (fraction * inside)[..., None])


def _axis_weights(start: Tensor, length: Tensor, bins: int, samples: int, size: int) -> Tensor:
    """Mean bilinear weights of one axis of RoIAlign: (N, bins, size), for regions of one sampling count."""
    if samples < 1:  # an empty region is sampled nowhere, and gives zeros
        return start.new_zeros(len(start), bins, size)
    weights = _sample_weights(_positions(start, length, bins, samples), size)
    return weights.view(len(start), bins, samples, size).mean(2)


@dataclass
class _Group:
    """RoIs that share an image and sampling counts.

    Attributes:
        image: which one.
        index: (n,) which RoIs.
        starts: (n,) top and left, in cells.
        lengths: (n,) height and width, in cells.
        samples: of a bin, vertical and horizontal.
    """

    image: int
    index: Tensor
    starts: tuple[Tensor, Tensor]
    lengths: tuple[Tensor, Tensor]
    samples: tuple[int, int]

    def weights(self, bins: Sequence[int], size: Sequence[int]) -> list[Tensor]:
        """Vertical and horizontal mean weights, (n, bins, size)."""
        return [_axis_weights(*axis) for axis in zip(self.starts, self.lengths, bins, self.samples, size)]

    def positions(self, bins: Sequence[int]) -> list[Tensor]:
        """Vertical and horizontal sampling positions, (n, bins * samples)."""
        return [_positions(*axis) for axis in zip(self.starts, self.lengths, bins, self.samples)]


def _roi_groups(rois: Tensor, bins: tuple[int, int], spatial_scale: float, sampling_ratio: int,
                aligned: bool) -> Iterator[_Group]:
    """The RoIs, in groups."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (rois[:, 1:] * spatial_scale - shift).unbind(1)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = width.clamp(min=1.0), height.clamp(min=1.0)

    def count(length: Tensor, n: int) -> Tensor:
        if sampling_ratio > 0:
            return torch.full_like(length, sampling_ratio, dtype=torch.long)
        return (length / n).ceil().long()

    keys = torch.stack([rois[:, 0].long(), count(height, bins[0]), count(width, bins[1])], 1)
    for key in keys.unique(dim=0):
        index = (keys == key).all(1).nonzero().flatten()
        image, vertical, horizontal = key.tolist()
        yield _Group(image, index, (y1[index], x1[index]), (height[index], width[index]), (vertical, horizontal))


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Fill `output` with RoIAlign, the mean or maximum of a bin's samples; each RoI is two interpolation matrices.

    Args:
        input: (B, C, H, W).
        rois: (N, 5); one without area gives zeros where the number of samples follows its size.
        output: (N, C, aligned_height, aligned_width).
        argmax_y: the shape of `output`, filled by the maximum: row of the largest sample in cells, -1 for none.
        argmax_x: its column.
        aligned_height: vertical bins.
        aligned_width: horizontal bins.
        spatial_scale: size of the map over that of the picture.
        sampling_ratio: samples of a bin along each axis; 0 takes one for each cell begun.
        pool_mode: 1, average; 0, maximum.
        aligned: shift by half a cell, as is right; without it, regions are at least one cell large.
    """
    bins = (aligned_height, aligned_width)
    for group in _roi_groups(rois, bins, spatial_scale, sampling_ratio, aligned):
        if pool_mode == 1:
            rows, columns = group.weights(bins, input.shape[-2:])
            output[group.index] = torch.einsum('nih,chw,njw->ncij', rows, input[group.image], columns)
        else:
            found = _largest_samples(input[group.image], group, bins)
            for target, values in zip((output, argmax_y, argmax_x), found):
                target[group.index] = values


def _largest_samples(maps: Tensor, group: _Group, bins: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Largest sample of every bin, (n, C, *bins), and its row and column; 0 and -1 for bins without samples."""
    shape = (len(group.index), len(maps), *bins)
    if min(group.samples) < 1:
        return maps.new_zeros(shape), maps.new_full(shape, -1.0), maps.new_full(shape, -1.0)
    rows, columns = group.positions(bins)
    samples = torch.einsum('nyh,chw,nxw->ncyx', _sample_weights(rows, maps.shape[1]), maps,
                           _sample_weights(columns, maps.shape[2]))
    tall, wide = group.samples
    best, at = samples.unflatten(3, (-1, wide)).unflatten(2, (-1, tall)).transpose(3, 4).flatten(4).max(-1)
    row = torch.arange(bins[0], device=at.device)[:, None] * tall + at // wide
    column = torch.arange(bins[1], device=at.device) * wide + at % wide
    return best, _taken(rows, row), _taken(columns, column)


def _taken(positions: Tensor, places: Tensor) -> Tensor:
    """Positions (n, N) at places (n, ...)."""
    return positions.gather(1, places.flatten(1)).view_as(places)


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Add the gradient of `roi_align_forward` to `grad_input` (B, C, H, W): the transposed matrices."""
    bins, size = (aligned_height, aligned_width), grad_input.shape[-2:]
    for group in _roi_groups(rois, bins, spatial_scale, sampling_ratio, aligned):
        share = grad_output[group.index]
        if pool_mode == 1:
            rows, columns = group.weights(bins, size)
            grad_input[group.image] += torch.einsum('nih,ncij,njw->chw', rows, share, columns)
        else:
            rows = _sample_weights(argmax_y[group.index], size[0]) * (min(group.samples) > 0)
            columns = _sample_weights(argmax_x[group.index], size[1])
            grad_input[group.image] += torch.einsum('ncijh,ncij,ncijw->chw', rows, share, columns)


def _pool_borders(first: Tensor, last: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """First cell and the cell after the last of every bin along one axis, (N, bins) int64 each."""
    length = ((last - first) / bins)[:, None]
    steps = torch.arange(bins + 1, device=first.device, dtype=first.dtype)
    low = (steps[:-1] * length + first[:, None]).floor().clamp(0, size).long()
    high = (steps[1:] * length + first[:, None]).ceil().clamp(0, size).long()
    return low, high


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """Fill `output` with the largest value of every bin, and `argmax` with its place.

    Args:
        input: (B, C, H, W).
        rois: (N, 5); the pixels of x2 and y2 belong to the region.
        output: (N, C, pooled_height, pooled_width), zeros, which empty bins and regions keep.
        argmax: the same shape, int32, filled: y * W + x of the first largest value, -1 where there is none (mmcv leaves
            0 in regions without area, whose gradient then goes to the first cell).
        pooled_height: vertical bins.
        pooled_width: horizontal bins.
        spatial_scale: size of the map over that of the picture.

    Source: Girshick, Fast R-CNN (ICCV 2015), section 2.1.
    """
    columns = input.shape[3]
    argmax.fill_(-1)
    x1, y1 = rois[:, 1] * spatial_scale, rois[:, 2] * spatial_scale
    x2, y2 = (rois[:, 3] + 1) * spatial_scale, (rois[:, 4] + 1) * spatial_scale
    tops, bottoms = (border.tolist() for border in _pool_borders(y1, y2, pooled_height, input.shape[2]))
    lefts, rights = (border.tolist() for border in _pool_borders(x1, x2, pooled_width, columns))
    for n in ((x2 > x1) & (y2 > y1)).nonzero().flatten().tolist():
        maps = input[int(rois[n, 0])]
        for i, (top, bottom) in enumerate(zip(tops[n], bottoms[n])):
            for j, (left, right) in enumerate(zip(lefts[n], rights[n])):
                if bottom <= top or right <= left:
                    continue
                largest, at = maps[:, top:bottom, left:right].flatten(1).max(1)
                output[n, :, i, j] = largest
                argmax[n, :, i, j] = (top + at // (right - left)) * columns + left + at % (right - left)


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Add the gradient of `roi_pool_forward` to `grad_input` (B, C, H, W): each goes where the value came from."""
    index = argmax.long().flatten(2)
    share = grad_output.flatten(2) * (index >= 0)
    by_roi = grad_input.new_zeros(*index.shape[:2], grad_input.shape[2] * grad_input.shape[3])
    by_roi.scatter_add_(2, index.clamp(min=0), share)
    grad_input.flatten(2).index_add_(0, rois[:, 0].long(), by_roi)
