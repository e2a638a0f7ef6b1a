"""Depth of a frame from its frozen prediction: scale, shift and a smooth factor on a 5x5 grid of bilinear hats.

M(p) = s (d(p) + t m) exp(sum of hats gamma), m the frame's median; for disparity M(p) = s / (d(p) + t m) times the same
factor. So log M is linear in log s and gamma for both kinds (spec sections 10 and 12.0).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.errors import UserError

GRID = 5
SMALLEST = 1e-3
"""Least value of d + t m, in medians."""
KINDS = {'affine_depth': 1.0, 'affine_disparity': -1.0, 'metric': 1.0}


def hat_matrix(length: int, nodes: int, positions: np.ndarray | None = None) -> np.ndarray:
    """Values (N, nodes) of the hats along an axis of so many pixels, at positions (N, ) in pixels or at every pixel.

    >>> hat_matrix(3, 2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    positions = np.arange(length) if positions is None else positions
    place = np.clip(positions / max(length - 1, 1), 0, 1) * (nodes - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(nodes)), 0)


def hats_at(pixels: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Values (N, nodes) of the hats of a grid of `shape` at pixels (N, 2) as (u, v) of an image (height, width)."""
    rows, columns = hat_matrix(size[0], shape[0], pixels[:, 1]), hat_matrix(size[1], shape[1], pixels[:, 0])
    return (rows[:, :, None] * columns[:, None]).reshape(len(pixels), shape[0] * shape[1])


def bilinear(maps: np.ndarray, frame: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Values (N, ) of maps (F, H, W) at pixels (N, 2) as (u, v) of frames (N, ); the edge is repeated."""
    height, width = maps.shape[1:]
    u, v = np.clip(pixels[:, 0], 0, width - 1), np.clip(pixels[:, 1], 0, height - 1)
    left, top = np.minimum(u.astype(int), max(width - 2, 0)), np.minimum(v.astype(int), max(height - 2, 0))
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    du, dv = u - left, v - top
    return ((1 - dv) * ((1 - du) * maps[frame, top, left] + du * maps[frame, top, right])
            + dv * ((1 - du) * maps[frame, below, left] + du * maps[frame, below, right]))


def missing_depth(maps: np.ndarray, kind: str) -> np.ndarray:
    """Bool (F, H, W): values of maps (F, H, W) that say that nothing was measured.

    >>> missing_depth(np.array([[[1.0, 0.0, np.nan]]]), 'metric').tolist()
    [[[False, True, True]]]
    """
    missing = ~np.isfinite(maps)
    if kind == 'metric':
        return missing | ~(maps > 0)
    return missing | (maps == 0) if kind == 'affine_depth' else missing  # a disparity of 0 is far away


def filled_depth(maps: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Maps (F, H, W) with the nearest value of the frame where it is missing (F, H, W).

    A frame without any gets the median of all.

    Raises:
        UserError: no frame has a value.
    """
    ndimage, filled = require('scipy.ndimage', 'depth with missing values'), maps.copy()
    if missing.all():
        raise UserError('the depth holds no value at all: 0, NaN and infinity mean that nothing was measured')
    for values, gone in zip(filled, missing):
        if gone.all():
            values[:] = np.median(maps[~missing])
        elif gone.any():
            place = ndimage.distance_transform_edt(gone, return_distances=False, return_indices=True)
            values[:] = values[tuple(place)]
    return filled


@dataclass
class DepthParameters:
    """Unknowns of the depth of F frames.

    Attributes:
        log_scale: (F, ).
        shift: (F, ) in medians of the frame's prediction.
        grid: (F, 25) logarithmic factors at the nodes; None: all 0.
    """

    log_scale: np.ndarray
    shift: np.ndarray
    grid: np.ndarray | None = None

    def copy(self) -> DepthParameters:
        """An independent copy."""
        grid = None if self.grid is None else self.grid.copy()
        return DepthParameters(self.log_scale.copy(), self.shift.copy(), grid)


class FrozenDepth:
    """Frozen predictions and the depth that parameters make of them.

    >>> frozen = FrozenDepth(np.full((1, 2, 2), 2.0))
    >>> parameters = DepthParameters(np.log([3.0]), np.array([0.5]))   # 3 (2 + 0.5 * 2)
    >>> np.exp(frozen.log_maps(parameters)).round(6).tolist()
    [[[9.0, 9.0], [9.0, 9.0]]]

    Args:
        maps: (F, H, W), greater means farther (depth) or nearer (disparity). NaN, infinity, and 0 of a depth are
            values that are missing.
        kind: `'affine_depth'`, `'affine_disparity'` or `'metric'`.

    Attributes:
        missing: (F, H, W) bool, where there is no value; None: nowhere. `maps` holds the nearest value there.

    Raises:
        UserError: unknown kind, wrong shape, no value at all, or a frame whose median is not positive.
    """

    def __init__(self, maps: np.ndarray, kind: str = 'affine_depth') -> None:
        if kind not in KINDS:
            raise UserError(f'kind must be one of {list(KINDS)}, got {kind!r}')
        if maps.ndim != 3:
            raise ValueError(f'depth maps must have shape (F, H, W), got {maps.shape}')
        self.maps, self.kind, self.sign = np.asarray(maps, np.float32), kind, KINDS[kind]
        missing = missing_depth(self.maps, kind)
        self.missing = missing if missing.any() else None
        if missing.any():
            self.maps = filled_depth(self.maps, missing)
        self.medians = np.array([np.median(values[known] if known.any() else values)
                                 for values, known in zip(self.maps, ~missing)], dtype=float)
        if (self.medians <= 0).any():
            frame = int(np.nonzero(self.medians <= 0)[0][0])
            raise UserError(f'the depth of frame {frame} has the median {self.medians[frame]:g}; predictions must be '
                            'positive (subtract the minimum and add 0.01)')

    def known_at(self, frame: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Bool (N, ): whether there is a value at pixels (N, 2) of frames (N, )."""
        if self.missing is None:
            return np.ones(len(frame), dtype=bool)
        (height, width), place = self.size, np.rint(pixels).astype(int)
        return ~self.missing[frame, np.clip(place[:, 1], 0, height - 1), np.clip(place[:, 0], 0, width - 1)]

    def unusable(self, invalid: np.ndarray | None) -> np.ndarray | None:
        """Bool (F, H, W): pixels that do not count, or have no value; None: all are usable."""
        if self.missing is None or invalid is None:
            return invalid if self.missing is None else self.missing
        return self.missing | invalid

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the maps."""
        return self.maps.shape[1], self.maps.shape[2]

    def part(self, frames: np.ndarray) -> FrozenDepth:
        """The predictions of some frames (W, )."""
        maps = self.maps[frames]
        return FrozenDepth(maps if self.missing is None else np.where(self.missing[frames], np.nan, maps), self.kind)

    def sample(self, frame: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Predictions (N, ) at pixels (N, 2) of frames (N, ), in medians of the frame."""
        return bilinear(self.maps, frame, pixels) / self.medians[frame]

    def log_base(self, values: np.ndarray, frame: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log M without scale and grid (N, ), and its derivative by the shift (N, ).

        Args:
            values: (N, ) of `sample`.
            frame: (N, ) indexes.
            shift: (F, ) in medians.
        """
        total = np.maximum(values + shift[frame], SMALLEST)
        return self.sign * np.log(total) + np.log(self.medians[frame]) * self.sign, self.sign / total

    def log_maps(self, parameters: DepthParameters) -> np.ndarray:
        """Log M of all frames (F, H, W) float32."""
        offset, maps = parameters.log_scale + self.sign * np.log(self.medians), np.empty_like(self.maps)
        for frame, values in enumerate(self.maps):  # one by one: double precision of a whole clip takes much memory
            base = np.log(np.maximum(values / self.medians[frame] + parameters.shift[frame], SMALLEST))
            maps[frame] = self.sign * base + offset[frame]
        if parameters.grid is not None:
            grid = parameters.grid.reshape(-1, GRID, GRID)
            maps += hat_matrix(self.size[0], GRID) @ grid @ hat_matrix(self.size[1], GRID).T
        return maps
