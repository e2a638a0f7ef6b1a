"""Crop, resize and re-normalise a padded batch in one step, each image by its own valid area.

Resizing is two small matrices per image, so images of different valid size go through one batched product on the
device. The weights are those of Pillow's `Image.resize(box=...)`: the filter is widened when shrinking (antialias) and
cut at the border of the valid area. Because the weights of a pixel sum to one, the change of normalisation can be
applied to the small result.
"""
from __future__ import annotations

import torch
from torch import Tensor

from frozenmm.structures import ImageStats

_PILLOW_BITS = 22  # fixed-point bits of Pillow's 8-bit resampling


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -0.5, the one of Pillow."""
    a = -0.5
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


_KERNELS = {'bicubic': (_bicubic, 2.0), 'bilinear': (_bilinear, 1.0)}


def axis_weights(start: Tensor, stop: Tensor, out: int, valid: Tensor, size: int, *,
                 interpolation: str = 'bicubic', dtype: torch.dtype = torch.float64) -> Tensor:
    """Resampling matrices of one axis.

    Args:
        start: (B,) left end of the sampled interval, in pixels of the input; may lie outside the valid area.
        stop: (B,) right end, likewise.
        out: number of output pixels.
        valid: (B,) number of input pixels that show the image; others get no weight.
        size: number of input pixels, padding included.
        interpolation: `'bicubic'` or `'bilinear'`.
        dtype: of the result; the weights are computed in float64.

    Returns:
        (B, out, size); rows sum to 1, or to 0 where an output pixel sees no valid input at all.
    """
    kernel, support = _KERNELS[interpolation]
    start, stop, valid = (value.to(torch.float64)[:, None, None] for value in (start, stop, valid))
    scale = (stop - start) / out
    widen = scale.clamp(min=1.0)
    index = torch.arange(out, device=start.device, dtype=torch.float64)[None, :, None] + 0.5
    centre = start + index * scale
    low = (centre - support * widen + 0.5).floor().clamp(min=0)
    high = torch.minimum((centre + support * widen + 0.5).floor(), valid)
    # Only pixels under the filter are looked at; on other devices than the CPU, asking for its width would wait.
    read = start.device.type == 'cpu' and not torch.compiler.is_exporting()
    taps = min(size, int(2 * support * float(widen.max())) + 2) if read else size
    first = low.clamp(max=size - taps)
    pixel = first + torch.arange(taps, device=start.device, dtype=torch.float64)
    weights = kernel((pixel + 0.5 - centre) / widen)
    weights = torch.where((pixel >= low) & (pixel < high), weights, torch.zeros_like(weights))
    total = weights.sum(-1, keepdim=True)
    weights = weights / torch.where(total.abs() < 1e-12, torch.ones_like(total), total)
    matrix = torch.zeros(*weights.shape[:2], size, dtype=dtype, device=start.device)
    return matrix.scatter_(2, pixel.long(), weights.to(dtype))


def resample(images: Tensor, region: Tensor, size: tuple[int, int], valid_sizes: Tensor, *,
             interpolation: str = 'bicubic', source: ImageStats, target: ImageStats, quantise: bool = False) -> Tensor:
    """The regions of a batch at one size, in the target's normalisation and channel order.

    Args:
        images: (B, 3, H, W), normalised by `source`, padded at the bottom and right.
        region: (B, 4) float xyxy in pixels: what the output shows; outside the valid area it shows the target's mean.
        size: (height, width) of the output.
        valid_sizes: (B, 2) int64 height and width of the valid area.
        interpolation: `'bicubic'` or `'bilinear'`, antialiased.
        source: normalisation of `images`.
        target: normalisation of the result.
        quantise: round to 8 bit before, between and after the two passes, as Pillow does with 8-bit images. Rows first,
            then columns: what Pillow always did up to version 12; Pillow 13 swaps the passes for some shapes (tall
            images that shrink), which changes single pixels.

    Returns:
        (B, 3, *size), dtype of `images`; zeros (the target's mean) where the region leaves the valid area.
    """
    height, width = images.shape[-2:]
    dtype = torch.float64 if quantise else images.dtype
    rows = axis_weights(region[:, 1], region[:, 3], size[0], valid_sizes[:, 0], height, interpolation=interpolation,
                        dtype=dtype)
    columns = axis_weights(region[:, 0], region[:, 2], size[1], valid_sizes[:, 1], width, interpolation=interpolation,
                           dtype=dtype)
    inside = _inside(region, size, valid_sizes)
    source_mean, source_std = source.tensors(images)
    target_mean, target_std = target.tensors(images)
    if quantise:
        pixels = _pillow_passes((images * source_std + source_mean).round(), rows, columns).to(images.dtype)
        source_mean, source_std = torch.zeros_like(source_mean), torch.ones_like(source_std)
    else:
        # the channels of an image share its columns: one product of (3 H, W) and (W, w)
        narrow = images.flatten(1, 2) @ columns.transpose(-1, -2)
        pixels = rows[:, None] @ narrow.unflatten(1, (3, height))
    if source.channel_order != target.channel_order:
        pixels, source_mean, source_std = pixels.flip(1), source_mean.flip(0), source_std.flip(0)
    pixels = pixels * (source_std / target_std) + (source_mean - target_mean) / target_std
    return pixels * inside[:, None].to(images.dtype)


def _pillow_passes(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Horizontal, then vertical pass with Pillow's fixed-point weights and 8-bit intermediate results."""
    one = 2.0**_PILLOW_BITS

    def fixed(weights: Tensor) -> Tensor:
        return torch.where(weights < 0, (weights * one - 0.5).ceil(), (weights * one + 0.5).floor())[:, None]

    pixels = pixels.to(torch.float64)
    pixels = ((pixels @ fixed(columns).transpose(-1, -2)) / one + 0.5).floor().clamp(0, 255)
    return ((fixed(rows) @ pixels) / one + 0.5).floor().clamp(0, 255)


def _inside(region: Tensor, size: tuple[int, int], valid_sizes: Tensor) -> Tensor:
    """(B, h, w) bool: output pixels whose centre lies in the valid area."""
    axes = []
    for start, stop, out, valid in ((region[:, 1], region[:, 3], size[0], valid_sizes[:, 0]),
                                    (region[:, 0], region[:, 2], size[1], valid_sizes[:, 1])):
        index = torch.arange(out, device=region.device, dtype=torch.float64) + 0.5
        centre = start.double()[:, None] + index * ((stop - start).double() / out)[:, None]
        axes.append((centre >= 0) & (centre <= valid[:, None]))
    return axes[0][:, :, None] & axes[1][:, None]
