"""Consistency of depth maps with poses and focal length fixed (spec section 12.0, step 4).

Points on a grid of every frame are carried into overlapping frames; scale and grid factors of both change so that the
depths agree. The shift stays as the tracks found it: freed here, depth flattens.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from frozenmm.reconstruction.bundle import CAUCHY, Bundle, BundleState
from frozenmm.reconstruction.depth_model import GRID, DepthParameters, bilinear, hats_at
from frozenmm.reconstruction.frame_system import DENSE_UP_TO, FrameSystem
from frozenmm.reconstruction.radial import distort, straighten

UNKNOWNS = 1 + GRID * GRID


@dataclass(frozen=True)
class DenseSettings:
    """Settings of the dense stage.

    Attributes:
        stride: distance of the points in pixels of a 320x240 image.
        partners: at most so many partners per frame.
        overlap: least share of points that a partner sees.
        hidden: points with a residual below its negative are in front of the partner's surface by too much to match.
        behind: points with a residual above it are hidden behind the partner's surface.
        width: of the Cauchy weight, of the logarithmic depth.
        weight: of a point.
        track_weight: of a track's depth residual.
        steps: of Gauss-Newton.
        min_tracks: frames with fewer observations take no part.
    """

    stride: int = 8
    partners: int = 10
    overlap: float = 0.3
    hidden: float = 0.2
    behind: float = 0.1
    width: float = 0.03
    weight: float = 0.15
    track_weight: float = 3.0
    steps: int = 3
    min_tracks: int = 12


class DenseStage:
    """Gauss-Newton on logarithmic scales and grid factors.

    Args:
        bundle: tracks and predictions.
        state: where the joint solver ended.
        settings: of the stage.
        invalid: (F, H, W) bool, pixels that carry nothing.
    """

    def __init__(self, bundle: Bundle, state: BundleState, settings: DenseSettings,
                 invalid: np.ndarray | None = None) -> None:
        self.bundle, self.state, self.settings = bundle, state, settings
        height, width = bundle.depth.size
        stride = max(1, round(settings.stride * bundle.unit))
        v, u = np.meshgrid(np.arange(stride // 2, height, stride), np.arange(stride // 2, width, stride), indexing='ij')
        self.pixels = np.stack((u.ravel(), v.ravel()), 1)
        self.hats = hats_at(self.pixels, bundle.depth.size)
        self.focal = float(np.exp(state.log_focal))
        plane = straighten((self.pixels - bundle.centre) / self.focal, state.radial)
        self.rays = np.concatenate((plane, np.ones((len(plane), 1))), 1)
        u, v = self.pixels.T
        self.invalid = None if invalid is None else invalid[:, v, u]
        self.pairs = self._pairs(bundle.depth.log_maps(state.depth))

    def run(self) -> DepthParameters:
        """Parameters after all steps."""
        parameters = self.state.depth.copy()
        free = np.ones((len(parameters.shift), UNKNOWNS), dtype=bool)
        for _ in range(self.settings.steps):
            step, _ = self._system(parameters).solve(free, np.zeros(0, dtype=bool))
            parameters.log_scale = parameters.log_scale + step[:, 0]
            parameters.grid = parameters.grid + step[:, 1:]
            if np.abs(step).max() < 1e-4:
                break
        return parameters

    def _pairs(self, log_maps: np.ndarray) -> list[tuple[int, int]]:
        pairs = []
        # frames without tracks have no pose of their own, so their depth would pull the others wrong
        near = self._linked(len(log_maps))
        placed = np.bincount(self.bundle.tracks.frame, minlength=len(log_maps)) >= self.settings.min_tracks
        for a in np.flatnonzero(placed).tolist():
            shares = np.array([self._carry(log_maps, a, b)[0].mean() if placed[b] and b in near[a] else 0.0
                               for b in range(len(log_maps))])
            partners = np.argsort(-shares, kind='stable')[:self.settings.partners]
            pairs += [(a, int(b)) for b in partners if shares[b] > self.settings.overlap]
        return pairs

    def _linked(self, frames: int) -> list[set[int]]:
        """For every frame the others that can be its partners: all of a short clip, else those with common tracks."""
        if frames <= DENSE_UP_TO:
            return [set(range(frames)) - {frame} for frame in range(frames)]
        shared = self.bundle.shared_counts()
        return [{int(b) for b in np.argsort(-row)[:3 * self.settings.partners] if row[b] > 0} for row in shared]

    def _carry(self, log_maps: np.ndarray, a: int, b: int) -> tuple[np.ndarray, ...]:
        """Seen (N, ), and of the seen: target pixels (V, 2), z (V, ), d log z and d pixel by log M_a (V, ), (V, 2)."""
        relative = self.state.poses[b] @ np.linalg.inv(self.state.poses[a])
        depth = np.exp(log_maps[a, self.pixels[:, 1], self.pixels[:, 0]])
        direction = depth[:, None] * (self.rays @ relative[:3, :3].T)
        points = direction + relative[:3, 3]
        z = np.maximum(points[:, 2], 1e-6)
        target = self.focal * distort(points[:, :2] / z[:, None], self.state.radial) + self.bundle.centre
        height, width = self.bundle.depth.size
        seen = (points[:, 2] > 1e-3) & (target >= 0).all(1) & (target[:, 0] <= width - 1) & (target[:, 1] <= height - 1)
        if self.invalid is not None:
            seen &= ~self.invalid[a]
        direction, points, z = direction[seen], points[seen], z[seen]
        moved = self.focal * (direction[:, :2] - points[:, :2] * (direction[:, 2] / z)[:, None]) / z[:, None]
        return seen, target[seen], z, direction[:, 2] / z, moved

    def _system(self, parameters: DepthParameters) -> FrameSystem:
        maps = self.bundle.depth.log_maps(parameters)
        slopes = np.stack((np.gradient(maps, axis=2), np.gradient(maps, axis=1)), 3)
        system = FrameSystem(len(maps), UNKNOWNS, 0)
        self._add_priors(system, parameters)
        for a, b in self.pairs:
            self._add_pair(system, maps, slopes, a, b)
        self._add_tracks(system, parameters)
        return system

    def _add_pair(self, system: FrameSystem, maps: np.ndarray, slopes: np.ndarray, a: int, b: int) -> None:
        s = self.settings
        seen, target, z, by_depth, moved = self._carry(maps, a, b)
        frame = np.full(len(target), b)
        residual = np.log(z) - bilinear(maps, frame, target)
        kept = (residual > -s.hidden) & (residual < s.behind)
        if not kept.any():
            return
        target, residual = target[kept], residual[kept]
        nearest = np.rint(target).astype(int)
        slope = slopes[b, nearest[:, 1], nearest[:, 0]]
        # steep log depth is an edge, where the slope says nothing about the surface
        slope = np.where(np.abs(slope).max(1, keepdims=True) < 0.05, slope, 0)
        factor = by_depth[kept] - (slope * moved[kept]).sum(1)
        weight = s.weight / (1 + (residual / s.width)**2)
        ones = np.ones((len(target), 1))
        from_a = factor[:, None] * np.concatenate((ones, self.hats[seen][kept]), 1)
        into_b = np.concatenate((ones, hats_at(target, self.bundle.depth.size)), 1)
        joined = np.concatenate((from_a, -into_b), 1)
        weighted = joined * (weight / s.width**2)[:, None]
        block, slope_sum = joined.T @ weighted, weighted.T @ residual
        system.add(a, a, block[:UNKNOWNS, :UNKNOWNS])
        system.add(b, b, block[UNKNOWNS:, UNKNOWNS:])
        system.add(a, b, block[:UNKNOWNS, UNKNOWNS:])
        system.gradient[a] += slope_sum[:UNKNOWNS]
        system.gradient[b] += slope_sum[UNKNOWNS:]

    def _add_tracks(self, system: FrameSystem, parameters: DepthParameters) -> None:
        bundle = self.bundle
        residual = bundle.residuals(replace(self.state, depth=parameters))[2] / bundle.settings.log_depth
        weight = self.settings.track_weight / (1 + residual**2 / CAUCHY)
        rows = -np.concatenate((np.ones((len(residual), 1)), bundle.hats), 1) / bundle.settings.log_depth
        for frame in range(len(parameters.shift)):
            index = bundle.tracks.frame == frame
            weighted = rows[index] * weight[index, None]
            system.add(frame, frame, weighted.T @ rows[index])
            system.gradient[frame] += weighted.T @ residual[index]

    def _add_priors(self, system: FrameSystem, parameters: DepthParameters) -> None:
        width = self.bundle.settings.grid
        prior = np.full(UNKNOWNS, 1 / width**2)
        prior[0] = 0.0
        for frame, grid in enumerate(parameters.grid):
            system.add(frame, frame, np.diag(prior + 1e-6))
            system.gradient[frame, 1:] += grid / width**2
