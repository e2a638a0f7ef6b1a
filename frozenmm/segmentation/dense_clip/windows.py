"""Windows over an image: where they lie, and how their maps become one map again.

Resizing, cutting and averaging are linear and go axis by axis. So the maps of all windows, laid side by side, become
the map of the image by one matrix per axis (`stitch`), whatever is resized in between.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class WindowPlan:
    """Windows of one size over an image, row by row.

    Attributes:
        size: height and width of the image.
        window: height and width of every window.
        tops, lefts: where the windows of each axis start; every pair of them is a window.
    """

    size: Size
    window: Size
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """y1 x1 y2 x2 of every window."""
        height, width = self.window
        return [(top, left, top + height, left + width) for top in self.tops for left in self.lefts]

    def cut(self, image: Tensor) -> Tensor:
        """(N, C, window) of an image (C, H, W)."""
        return torch.stack([image[:, top:bottom, left:right] for top, left, bottom, right in self.boxes])


def window_plan(size: Size, crop: Size, stride: Size) -> WindowPlan:
    """Overlapping windows; the last one of an axis is moved back to end at the border.

    Args:
        size: height and width of the image.
        crop: of a window; a side of the image below it gives a window of that side.
        stride: step from window to window.
    """
    axes = []
    for side, length, step in zip(size, crop, stride):
        count = max(side - length + step - 1, 0) // step + 1
        axes.append(tuple(max(min(index * step + length, side) - length, 0) for index in range(count)))
    return WindowPlan(size, (min(crop[0], size[0]), min(crop[1], size[1])), axes[0], axes[1])


def fitted_size(size: Size, multiple: int, crop: Size) -> Size:
    """The size that Trident gives an image before it is cut into windows.

    Args:
        size: height and width; kept where both are multiples.
        multiple: of the sides of the result.
        crop: least sides of the result, as long as the size is not kept.

    Returns:
        The longer side up to a multiple, the other one in the ratio of the image and up to a multiple.
    """
    if size[0] % multiple == 0 and size[1] % multiple == 0:
        return size
    longest = max(size)
    target = -(-longest // multiple) * multiple
    sides = [target if side == longest else int(side * target / longest) for side in size]
    height, width = (max(-(-side // multiple) * multiple, least) for side, least in zip(sides, crop))
    return height, width


def split_padding(side: int, multiple: int) -> tuple[int, int]:
    """Padding before and after a side that makes it a multiple; the odd pixel goes after."""
    missing = -side % multiple
    return missing // 2, missing - missing // 2


@dataclass(frozen=True)
class Placing:
    """How the map of a window becomes that of the image.

    Attributes:
        plan: the windows, in pixels or in cells.
        shown: height and width that a window's map is resized to; None leaves its cells alone.
        before: rows and columns of these above and to the left of the window (padding), which are cut away; so is what
            stands behind the window.
        size: height and width of the result, resized once more; None: as the plan has it.
    """

    plan: WindowPlan
    shown: Size | None = None
    before: Size = (0, 0)
    size: Size | None = None


def stitch(maps: Tensor, placing: Placing) -> Tensor:
    """One map from those of all windows: resized, cut, averaged where they overlap, and resized again, bilinearly.

    Args:
        maps: (N, C, h, w) in the order of the plan.
        placing: where they go.

    Returns:
        (1, C, height, width).
    """
    plan = placing.plan
    rows, columns = (
        _axis_matrix(cells, None if placing.shown is None else placing.shown[axis], placing.before[axis],
                     plan.window[axis], starts, plan.size[axis], None if placing.size is None else placing.size[axis]
                     ).to(maps)
        for axis, (cells, starts) in enumerate(zip(maps.shape[-2:], (plan.tops, plan.lefts))))
    beside = maps.unflatten(0, (len(plan.tops), len(plan.lefts))).permute(2, 0, 3, 1, 4)
    return (rows @ (beside.flatten(3).flatten(1, 2) @ columns.T))[None]


@dataclass
class CellMaps:
    """Maps on the cells of windows, or of the whole image, and where they go.

    Attributes:
        maps: (N, Q, h, w).
        placing: how they become one map.
        direct: a single window without padding may be resized straight to the size wanted.
    """

    maps: Tensor
    placing: Placing
    direct: bool = True

    def at(self, size: Size | None = None) -> Tensor:
        """(1, Q, *size), at the size of the network's image by default."""
        placing = self.placing
        if size is not None and self.direct and len(self.maps) == 1 and placing.shown == placing.plan.size:
            placing = Placing(WindowPlan(size, size, (0,), (0,)), size)
        return stitch(self.maps, replace(placing, size=size))


@lru_cache(maxsize=64)
def _axis_matrix(cells: int, shown: int | None, before: int, window: int, starts: Sequence[int], side: int,
                 output: int | None) -> Tensor:
    """(output, windows * cells) float32: what every place of the result takes from every cell of every window."""
    one = resize_matrix(cells, cells if shown is None else shown)[before:before + window]
    matrix, counts = torch.zeros(side, len(starts), cells), torch.zeros(side, 1, 1)
    for index, start in enumerate(starts):
        matrix[start:start + window, index] += one
        counts[start:start + window] += 1
    matrix = (matrix / counts).flatten(1)
    return matrix if output is None or output == side else resize_matrix(side, output) @ matrix


def resize_matrix(cells: int, output: int) -> Tensor:
    """(output, cells) float32 of bilinear resizing along one axis, corners not aligned, without antialias."""
    if cells == output:
        return torch.eye(cells)
    return F.interpolate(torch.eye(cells)[None], output, mode='linear', align_corners=False)[0].T.contiguous()
