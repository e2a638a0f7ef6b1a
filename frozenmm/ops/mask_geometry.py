"""Sizes through which a mask travels on its way to the output, and the sampling rule that joins the steps into one."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class MaskGeometry:
    """The three sizes of mask post-processing, each (height, width) in pixels.

    Mask logits are resized to `padded`, cut to their top-left `image` part, and resized to `output`.

    Attributes:
        padded: size of the padded network input (the whole batch shares it).
        image: size of the image's own part of the padded input, at most `padded`.
        output: requested size, usually that of the original picture.

    Raises:
        TypeError: a size is not a pair of integers.
        ValueError: a size is not positive, or `image` exceeds `padded`.
    """

    padded: Size
    image: Size
    output: Size

    def __post_init__(self) -> None:
        for name in ('padded', 'image', 'output'):
            object.__setattr__(self, name, _checked_size(name, getattr(self, name)))
        if self.image[0] > self.padded[0] or self.image[1] > self.padded[1]:
            raise ValueError(f'MaskGeometry: image must fit into padded, but image={self.image} and '
                             f'padded={self.padded}; give sizes as (height, width).')

    @classmethod
    def resize_to(cls, output: Size) -> MaskGeometry:
        """One direct resize to `output` without padding: the two other sizes are the same.

        >>> MaskGeometry.resize_to((3, 4))
        MaskGeometry(padded=(3, 4), image=(3, 4), output=(3, 4))
        """
        return cls(padded=output, image=output, output=output)


def _checked_size(name: str, size: object) -> Size:
    values = tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(values) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise TypeError(f'MaskGeometry: {name} must be two integers (height, width), got {size!r}.')
    if min(values) < 1:
        raise ValueError(f'MaskGeometry: {name} must be at least (1, 1), got {values}.')
    return values


@dataclass(frozen=True)
class AxisTaps:
    """One sparse row per output position along one axis.

    Attributes:
        index: (output, T) int64 source positions, ascending among the taps in use; T <= 4.
        weight: (output, T) float32; taps not in use have weight 0 and repeat the first index.
    """

    index: Tensor
    weight: Tensor


def _resize_step(source: int, target: int) -> tuple[Tensor, Tensor]:
    """Taps of one bilinear resize, `align_corners=False`: (target, 2) int64 and float64.

    Source positions are computed in float32, as torch's own resize does, so that both round to the same cells.
    """
    if source == target:
        index = torch.arange(target)[:, None].expand(-1, 2)
        return index, torch.tensor([1.0, 0.0], dtype=torch.float64).expand(target, 2)
    scale = torch.tensor(source, dtype=torch.float32) / torch.tensor(target, dtype=torch.float32)
    position = ((torch.arange(target, dtype=torch.float32) + 0.5) * scale - 0.5).clamp_min(0)
    low = position.floor().clamp_max(source - 1)
    fraction = (position - low).clamp(0, 1).double()
    low = low.long()
    index = torch.stack([low, (low + 1).clamp_max(source - 1)], dim=1)
    return index, torch.stack([1 - fraction, fraction], dim=1)


@lru_cache(maxsize=64)
def axis_taps(source: int, padded: int, image: int, output: int) -> AxisTaps:
    """Sampling rule along one axis: resize to `padded`, keep the first `image`, resize to `output`.

    Both steps are linear, so their composition is exact; a direct resize from `source` to `output` is another function.

    Args:
        source: cells of the mask logits along this axis.
        padded: see `MaskGeometry`, likewise the next two.
        image: at most `padded`.
        output: length of the result.
    """
    first_index, first_weight = _resize_step(source, padded)
    second_index, second_weight = _resize_step(image, output)
    index = first_index[second_index].flatten(1)
    weight = (first_weight[second_index] * second_weight[..., None]).flatten(1)
    index, order = index.sort(dim=1, stable=True)
    weight = weight.gather(1, order).clone()
    for tap in range(1, index.shape[1]):
        same = index[:, tap] == index[:, tap - 1]
        weight[:, tap] += torch.where(same, weight[:, tap - 1], 0.0)
        weight[:, tap - 1] = torch.where(same, 0.0, weight[:, tap - 1])
    unused = (weight == 0).long()
    order = unused.argsort(dim=1, stable=True)
    index, weight, unused = index.gather(1, order), weight.gather(1, order), unused.gather(1, order)
    used = int((1 - unused).sum(dim=1).max())
    index = torch.where(unused.bool(), index[:, :1], index)[:, :used].contiguous()
    return AxisTaps(index, weight[:, :used].float().contiguous())
