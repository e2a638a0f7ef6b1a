"""Depth maps that agree with each other and with points of known depth, cameras fixed (spec section 12.0, step 4).

The spec moves scale and a 5x5 grid of all frames in one system. Here the frames take turns: each is bent by smooth
logarithmic factors on a finer grid until it agrees with its points of known depth (tracks) and with what the other
frames, as they are by then, say of its pixels. So time and memory grow with the number of frames only. At the end every
pixel takes the mean over the frames that see the same surface, which lowers the prediction's noise. The shift stays as
it was found: freed here, depth flattens.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.reconstruction.bundle import CAUCHY
from frozenmm.reconstruction.depth_model import bilinear, hat_matrix, hats_at
from frozenmm.reconstruction.features import pixel_unit
from frozenmm.reconstruction.lens import NO_LENS, distort, straighten

ALL_PARTNERS_UP_TO = 40
"""Frames of a clip above which only linked frames can be partners."""
STEEPEST = 0.3
"""Least change of a point's log depth in a partner by that in its own frame at which the two can be compared."""


@dataclass(frozen=True)
class DenseSettings:
    """Settings of the dense stage. Lengths are in pixels of a 320x240 image, errors in logarithmic depth.

    Attributes:
        cell: distance of the grid's nodes.
        factor: width of the prior on the logarithmic factors.
        difference: width of the prior on the difference of neighbouring factors.
        stride: distance of the points at which frames are compared.
        partners: at most so many partners per frame.
        overlap: least share of points that a partner sees.
        before: points farther in front of the partner's surface are not on it.
        behind: points farther behind the partner's surface are hidden by it.
        width: of the Cauchy weight of a point.
        weight: of a point in one partner; it is less than 1 because errors of neighbouring points are alike.
        sweeps: turns of all frames.
        mean_stride: distance of the pixels at which the mean over the frames is taken.
        mean_limit: pixels whose depth differs by more are not of the same surface.
        min_marks: frames with fewer known points take no part.
    """

    cell: float = 28.0
    factor: float = 0.15
    difference: float = 0.04
    stride: float = 8.0
    partners: int = 10
    overlap: float = 0.3
    before: float = 0.2
    behind: float = 0.1
    width: float = 0.03
    weight: float = 0.5
    sweeps: int = 8
    mean_stride: float = 2.0
    mean_limit: float = 0.08
    min_marks: int = 12


@dataclass
class Marks:
    """Points of known depth.

    Attributes:
        frame: (O, ) index of the frame.
        pixels: (O, 2) as (u, v).
        log_depth: (O, ) logarithmic depth.
        error: (O, ) its error as a measure of the smooth factor, that of the prediction at one pixel included.
    """

    frame: np.ndarray
    pixels: np.ndarray
    log_depth: np.ndarray
    error: np.ndarray


@dataclass
class _Points:
    """Pixels of every frame: columns `u`, rows `v`, rays (N, 3) with depth 1 and (height, width) of their grid."""

    u: np.ndarray
    v: np.ndarray
    rays: np.ndarray
    shape: tuple[int, int]


@dataclass
class _Comparison:
    """Points of a frame in its partners.

    Attributes:
        gap: (B, N) log depth of the partner's surface less that of the point.
        gain: (B, N) change of the point's log depth in the partner by that in its own frame.
        seen: (B, N) which of them can be compared.
    """

    gap: np.ndarray
    gain: np.ndarray
    seen: np.ndarray


@dataclass
class Cameras:
    """Of all frames.

    Attributes:
        poses_w2c: (F, 4, 4).
        focal_px: focal length.
        lens: (4, ) of `lens.distort`.
    """

    poses_w2c: np.ndarray
    focal_px: float
    lens: np.ndarray = field(default_factory=NO_LENS.copy)


class DenseStage:
    """Bends depth maps until they agree.

    Args:
        log_maps: (F, H, W) logarithmic depth; `run` writes its result into float32 ones.
        cameras: of the frames.
        marks: points of known depth.
        settings: of the stage.
        links: (F, F) greater means more in common, 0 nothing; of a clip of more than 40 frames.
        invalid: (F, H, W) bool, pixels that carry nothing.
        followers: frames with few known points whose poses are right all the same: they are bent, but pull no other.

    Attributes:
        confidence: (F, H, W) float16 after `run`, 0 to 1: how many of the frames that see a pixel's place agree with
            its depth, and how well; 0 where none does.
    """

    def __init__(self, log_maps: np.ndarray, cameras: Cameras, marks: Marks, *, settings: DenseSettings,
                 links: np.ndarray | None = None, invalid: np.ndarray | None = None,
                 followers: Sequence[int] = ()) -> None:
        self.poses, self.focal, self.lens = cameras.poses_w2c, cameras.focal_px, cameras.lens
        self.marks = marks
        self.settings, self.links = settings, links
        self.invalid = None if invalid is None else invalid.astype(np.float32)
        self.start = log_maps.astype(np.float32, copy=False)
        self.maps = self.start.copy()
        self.confidence = np.zeros(log_maps.shape, np.float16)
        self.size = height, width = log_maps.shape[1:]
        self.unit, self.centre = pixel_unit(height, width), np.array([(width - 1) / 2, (height - 1) / 2])
        self.points = self._points(settings.stride)
        rows, columns = (1 + max(2, round(side / (settings.cell * self.unit))) for side in self.size)
        self.shape = (rows, columns)
        self.factors = np.zeros((len(self.maps), *self.shape))
        self.rows, self.columns = (hat_matrix(side, nodes) for side, nodes in zip(self.size, self.shape))
        self.hats = hats_at(np.stack((self.points.u, self.points.v), 1), self.size, self.shape)
        self.prior = _smoothness(*self.shape, settings)
        self.of_frame = [np.flatnonzero(marks.frame == frame) for frame in range(len(self.maps))]
        self.placed = np.array([len(index) >= settings.min_marks for index in self.of_frame])
        bent = self.placed.copy()
        bent[list(followers)] = True
        self.partners = {frame: self._partners(frame) for frame in np.flatnonzero(bent).tolist()}

    def run(self) -> np.ndarray:
        """Logarithmic depth (F, H, W) float32 of all frames."""
        for _ in range(self.settings.sweeps):
            for frame in self.partners:
                self._bend(frame)
        return self._mean_maps(self.start)

    def _points(self, stride: float) -> _Points:
        height, width = self.size
        step = max(1, round(stride * self.unit))
        grid = np.mgrid[step // 2:height:step, step // 2:width:step]
        v, u = grid.reshape(2, -1)
        plane = straighten((np.stack((u, v), 1) - self.centre) / self.focal, self.lens)
        return _Points(u, v, np.concatenate((plane, np.ones((len(plane), 1))), 1).astype(np.float32), grid.shape[1:])

    def _partners(self, frame: int) -> np.ndarray:
        """Frames that see most of a frame's surface."""
        others = self.placed.copy()
        others[frame] = False
        if len(self.maps) > ALL_PARTNERS_UP_TO and self.placed[frame]:
            links = np.ones(len(others)) if self.links is None else self.links[frame]
            others[np.argsort(-links, kind='stable')[3 * self.settings.partners:]] = False
            others &= links > 0
        candidates = np.flatnonzero(others)
        share = self._compare(self.points, frame, candidates).seen.mean(1)
        best = np.argsort(-share, kind='stable')[:self.settings.partners]
        return candidates[best[share[best] > self.settings.overlap]]

    def _compare(self, points: _Points, frame: int, partners: np.ndarray) -> _Comparison:
        """The points of a frame carried into its partners."""
        relative = (self.poses[partners] @ np.linalg.inv(self.poses[frame])).astype(np.float32)
        surface = np.exp(self.maps[frame, points.v, points.u])[:, None] * points.rays
        turned = surface @ relative[:, :3, :3].transpose(0, 2, 1)
        moved = turned + relative[:, None, :3, 3]
        z = np.maximum(moved[..., 2], 1e-6)
        target = self.focal * distort(moved[..., :2] / z[..., None], self.lens) + self.centre
        height, width = self.size
        inside = (target >= 0).all(2) & (target[..., 0] <= width - 1) & (target[..., 1] <= height - 1)
        gain = turned[..., 2] / z
        seen = inside & (moved[..., 2] > 1e-3) & (gain > STEEPEST)
        places = np.clip(target, 0, (width - 1, height - 1)).astype(np.float32).reshape(len(partners), *points.shape, 2)
        if self.invalid is not None:
            seen &= _looked_up(self.invalid, partners, places) == 0
            seen &= self.invalid[frame, points.v, points.u] == 0
        return _Comparison(_looked_up(self.maps, partners, places) - np.log(z), np.where(seen, gain, 1), seen)

    def _bend(self, frame: int) -> None:
        """The factors of one frame, all others as they are."""
        s, marks, factors, index = self.settings, self.marks, self.factors[frame].ravel(), self.of_frame[frame]
        hats = hats_at(marks.pixels[index], self.size, self.shape)
        offset = marks.log_depth[index] - bilinear(self.start, marks.frame[index], marks.pixels[index])
        residual, error = offset - hats @ factors, marks.error[index]
        # a poor prediction is off by more than the errors at most points: none of them is an outlier then
        scale = max(1.0, float(np.median(np.abs(residual) / error))) if len(index) else 1.0
        weight = 1 / (error**2 + residual**2 / (CAUCHY * scale**2))
        matrix, right = self.prior + hats.T @ (hats * weight[:, None]), hats.T @ (weight * offset)
        found = self._compare(self.points, frame, self.partners[frame])
        kept = found.seen & (found.gap > -s.behind) & (found.gap < s.before)
        weight = np.where(kept, s.weight / (s.width**2 + found.gap**2), 0)
        total, pull = weight.sum(0), (weight * found.gap / found.gain).sum(0)
        matrix += self.hats.T @ (self.hats * total[:, None])
        right += self.hats.T @ (pull + total * (self.hats @ factors))
        self.factors[frame] = np.linalg.solve(matrix, right).reshape(self.shape)
        self.maps[frame] = self.start[frame] + self.rows @ self.factors[frame] @ self.columns.T

    def _mean_maps(self, out: np.ndarray) -> np.ndarray:
        """Every pixel's mean with the partners' depth, written to `out` (F, H, W); sets `confidence`."""
        cv2, s = require('cv2', 'the dense stage'), self.settings
        points = self._points(s.mean_stride)
        out[:] = self.maps

        def enlarged(values: np.ndarray) -> np.ndarray:
            return cv2.resize(values.reshape(points.shape), out.shape[:0:-1], interpolation=cv2.INTER_LINEAR)

        for frame, partners in self.partners.items():
            found = self._compare(points, frame, partners)
            kept = found.seen & (np.abs(found.gap) < s.mean_limit)
            weight = np.where(kept, 1 / (1 + (found.gap / s.width)**2), 0)
            change = (weight * found.gap / found.gain).sum(0) / (1 + weight.sum(0))
            out[frame] += enlarged(change)
            self.confidence[frame] = enlarged(weight.sum(0) / np.maximum(found.seen.sum(0), 1))
        return out


def _looked_up(maps: np.ndarray, frames: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values (B, N) of maps (F, H, W) float32 of some frames (B, ) at places (B, h, w, 2) as (u, v), N = h w."""
    cv2 = require('cv2', 'the dense stage')
    found = np.empty(places.shape[:3], np.float32)
    for values, frame, place in zip(found, frames, places):
        cv2.remap(maps[frame], place, None, cv2.INTER_LINEAR, dst=values)
    return found.reshape(len(places), places.shape[1] * places.shape[2])


def _smoothness(rows: int, columns: int, settings: DenseSettings) -> np.ndarray:
    """Matrix of the prior on factors (rows x columns): their size and the differences of neighbours."""
    nodes = np.arange(rows * columns).reshape(rows, columns)
    matrix = np.eye(nodes.size) / settings.factor**2
    for first, second in ((nodes[:, :-1], nodes[:, 1:]), (nodes[:-1], nodes[1:])):
        difference = np.zeros((first.size, nodes.size))
        difference[np.arange(first.size), first.ravel()] = 1 / settings.difference
        difference[np.arange(first.size), second.ravel()] = -1 / settings.difference
        matrix += difference.T @ difference
    return matrix
