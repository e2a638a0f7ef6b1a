"""Joint least squares of cameras, depth parameters and points, with the points eliminated (spec section 12.0, step 3).

Per observation: two residuals of the pixel, one of the logarithmic depth against the frozen prediction, all with Cauchy
weights. Points are eliminated by a Schur complement that is formed per pair of frames; the rest is solved densely.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from frozenmm.compat.dependencies import require
from frozenmm.reconstruction.depth_model import GRID, DepthParameters, FrozenDepth, hats_at
from frozenmm.reconstruction.features import Tracks
from frozenmm.reconstruction.motions import se3_exp

CAUCHY = 4.0
"""Squared width of the Cauchy weights 1 / (1 + e^2 / 4)."""
POSE = 6
NEAREST = 1e-3


@dataclass(frozen=True)
class BundleSettings:
    """Widths of residuals and priors.

    Attributes:
        pixel: of the reprojection, at a diagonal of 400 pixels. Narrower than the features' error (0.3), because the
            frozen depth errs by smooth, systematic amounts: against 0.7 the path's error halves on every clip tried.
        log_depth: of the logarithmic depth.
        grid: of the grid's logarithmic factors.
        shift_mean: centre of the prior on the shift, in medians.
        shift: width of the prior on the shift.
        log_focal: width of the prior on the focal length.
        with_grid: the grid's factors are unknowns, too.
        fixed_focal: the focal length is given.
        fixed_poses: the poses are given.
    """

    pixel: float = 0.15
    log_depth: float = 0.05
    grid: float = 0.06
    shift_mean: float = 0.3
    shift: float = 1.6
    log_focal: float = 0.3
    with_grid: bool = True
    fixed_focal: bool = False
    fixed_poses: bool = False


@dataclass
class BundleState:
    """All unknowns.

    Attributes:
        poses: (F, 4, 4) world to camera.
        log_focal: logarithm of the focal length in pixels.
        depth: of every frame.
        points: (P, 3) in the world.
    """

    poses: np.ndarray
    log_focal: float
    depth: DepthParameters
    points: np.ndarray


def cauchy_cost(squared: np.ndarray) -> np.ndarray:
    """Robust cost of squared residuals."""
    return CAUCHY * np.log1p(squared / CAUCHY)


class Bundle:
    """Levenberg-Marquardt on tracks and frozen depth.

    Args:
        tracks: ordered by point.
        depth: predictions at the images' size.
        log_focal_prior: centre of the prior.
        unit: pixels per pixel of a 320x240 image.
        settings: widths and which unknowns are free.
    """

    def __init__(self, tracks: Tracks, depth: FrozenDepth, *, log_focal_prior: float, unit: float,
                 settings: BundleSettings) -> None:
        self.tracks, self.depth, self.settings = tracks, depth, settings
        self.log_focal_prior, self.unit = log_focal_prior, unit
        self.frames = len(depth.maps)
        self.columns = POSE + 2 + (GRID * GRID if settings.with_grid else 0)
        self.values = depth.sample(tracks.frame, tracks.pixels)
        self.hats = hats_at(tracks.pixels, depth.size)
        self.centre = np.array([(depth.size[1] - 1) / 2, (depth.size[0] - 1) / 2])
        self._firsts = np.flatnonzero(np.diff(tracks.point, prepend=-1))
        self._by_frame = [np.flatnonzero(tracks.frame == frame) for frame in range(self.frames)]
        self._shared = _shared_observations(tracks, self.frames)

    def log_depth(self, state: BundleState) -> tuple[np.ndarray, np.ndarray]:
        """Log M at the observations (O, ), and its derivative by the shift (O, )."""
        frame = self.tracks.frame
        base, slope = self.depth.log_base(self.values, frame, state.depth.shift)
        return base + state.depth.log_scale[frame] + (self.hats * state.depth.grid[frame]).sum(1), slope

    def residuals(self, state: BundleState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points in the camera (O, 3), pixel residuals (O, 2) in pixels and logarithmic depth residuals (O, )."""
        frame = self.tracks.frame
        rotation, shift = state.poses[frame, :3, :3], state.poses[frame, :3, 3]
        points = np.einsum('oij,oj->oi', rotation, state.points[self.tracks.point]) + shift
        z = np.maximum(points[:, 2], NEAREST)
        pixels = np.exp(state.log_focal) * points[:, :2] / z[:, None] + self.centre - self.tracks.pixels
        return points, pixels, np.log(z) - self.log_depth(state)[0]

    def cost(self, state: BundleState) -> float:
        """Robust cost with all priors."""
        _, pixels, depth = self.residuals(state)
        s = self.settings
        total = cauchy_cost((pixels**2).sum(1) / (s.pixel * self.unit)**2).sum()
        total += cauchy_cost((depth / s.log_depth)**2).sum()
        total += ((state.depth.grid / s.grid)**2).sum() + (((state.depth.shift - s.shift_mean) / s.shift)**2).sum()
        return float(total + ((state.log_focal - self.log_focal_prior) / s.log_focal)**2)

    def optimise(self, state: BundleState, *, steps: int, tolerance: float = 1e-5) -> tuple[BundleState, float]:
        """Up to `steps` Levenberg-Marquardt steps; ends early where the cost falls by less than `tolerance` of it.

        Returns:
            the best state and its cost.
        """
        damping, cost = 1e-4, self.cost(state)
        for _ in range(steps):
            system = self._linearise(state)
            improved = False
            for _ in range(6):
                trial = self._apply(state, *self._solve(system, damping))
                trial_cost = self.cost(trial)
                if trial_cost < cost:
                    improved, change = True, (cost - trial_cost) / cost
                    state, cost, damping = trial, trial_cost, max(damping * 0.3, 1e-9)
                    break
                damping *= 5
            if not improved or change < tolerance:
                break
        return state, cost

    def _jacobians(self, state: BundleState) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Weighted Jacobians by frame (O, 3, D), focal (O, 3), point (O, 3, 3), and weighted residuals (O, 3)."""
        s, frame = self.settings, self.tracks.frame
        points, pixels, depth = self.residuals(state)
        focal, z = np.exp(state.log_focal), np.maximum(points[:, 2], NEAREST)
        slope = self.log_depth(state)[1]
        by_point = np.zeros((len(points), 3, 3))  # derivative by the camera point
        by_point[:, 0, 0] = by_point[:, 1, 1] = focal / z
        by_point[:, :2, 2] = -focal * points[:, :2] / (z**2)[:, None]
        by_point[:, 2, 2] = 1 / z
        residual = np.concatenate((pixels, depth[:, None]), 1)
        width = np.array([s.pixel * self.unit, s.pixel * self.unit, s.log_depth])
        squared = np.stack(((pixels**2).sum(1) / width[0]**2, (depth / width[2])**2), 1)
        weight = (1 / np.sqrt(1 + squared / CAUCHY))[:, [0, 0, 1]] / width
        by_frame = np.zeros((len(points), 3, self.columns))
        by_frame[:, :, :3] = by_point
        by_frame[:, :, 3:6] = np.cross(points[:, None], by_point)  # -J [Y]x, row by row
        by_frame[:, 2, 6] = -1
        by_frame[:, 2, 7] = -slope
        if s.with_grid:
            by_frame[:, 2, 8:] = -self.hats
        by_focal = np.concatenate((focal * points[:, :2] / z[:, None], np.zeros((len(points), 1))), 1)
        world = by_point @ state.poses[frame, :3, :3]
        return (by_frame * weight[:, :, None], by_focal * weight, world * weight[:, :, None], residual * weight)

    def _linearise(self, state: BundleState) -> dict[str, np.ndarray]:
        """Blocks of the normal equations."""
        cameras, focal, points, residual = self._jacobians(state)
        joined = np.concatenate((cameras, focal[:, :, None], residual[:, :, None]), 2)
        size = joined.shape[2]
        blocks = np.stack([_gram(joined[index].reshape(-1, size)) for index in self._by_frame])
        transposed = points.transpose(0, 2, 1)
        per_point = np.add.reduceat(transposed @ np.concatenate((points, joined[:, :, -2:]), 2), self._firsts)
        return {'frames': blocks, 'cross': transposed @ cameras, 'points': per_point[:, :, :3],
                'point_focal': per_point[:, :, 3], 'point_gradient': per_point[:, :, 4],
                'prior': self._prior(state)}

    def _prior(self, state: BundleState) -> np.ndarray:
        """Diagonal and gradient (2, F * D + 1) of the priors."""
        s, prior = self.settings, np.zeros((2, self.frames, self.columns))
        prior[0, :, 7], prior[1, :, 7] = 1 / s.shift**2, (state.depth.shift - s.shift_mean) / s.shift**2
        if s.with_grid:
            prior[0, :, 8:], prior[1, :, 8:] = 1 / s.grid**2, state.depth.grid / s.grid**2
        focal = np.array([[1 / s.log_focal**2], [(state.log_focal - self.log_focal_prior) / s.log_focal**2]])
        return np.concatenate((prior.reshape(2, -1), focal), 1)

    def _solve(self, system: dict[str, np.ndarray], damping: float) -> tuple[np.ndarray, np.ndarray]:
        """Steps of frames and focal (F * D + 1, ) and of the points (P, 3)."""
        d, frames = self.columns, self.frames
        matrix, gradient = self._camera_system(system)
        matrix[np.diag_indices(len(matrix))] *= 1 + damping
        hpp = system['points'] * (1 + damping * np.eye(3)) + 1e-12 * np.eye(3)
        lower_inverse = np.linalg.inv(np.linalg.cholesky(hpp))
        half = lower_inverse[self.tracks.point] @ system['cross']  # (O, 3, D)
        half_focal = np.einsum('pij,pj->pi', lower_inverse, system['point_focal'])
        half_gradient = np.einsum('pij,pj->pi', lower_inverse, system['point_gradient'])
        border = np.stack((half_focal, half_gradient), 2)[self.tracks.point]
        for frame, index in enumerate(self._by_frame):
            rows = half[index].reshape(-1, d)
            place = slice(frame * d, (frame + 1) * d)
            matrix[place, place] -= rows.T @ rows
            shared = rows.T @ border[index].reshape(-1, 2)
            matrix[place, -1] -= shared[:, 0]
            matrix[-1, place] -= shared[:, 0]
            gradient[place] -= shared[:, 1]
        for (a, b), (first, second) in self._shared.items():
            block = half[first].reshape(-1, d).T @ half[second].reshape(-1, d)
            matrix[a * d:(a + 1) * d, b * d:(b + 1) * d] -= block
            matrix[b * d:(b + 1) * d, a * d:(a + 1) * d] -= block.T
        matrix[-1, -1] -= (half_focal**2).sum()
        gradient[-1] -= (half_focal * half_gradient).sum()
        step = self._solve_free(matrix, gradient)
        blocks = step[:-1].reshape(frames, d)
        back = half_gradient + half_focal * step[-1]
        moved = np.einsum('oij,oj->oi', half, blocks[self.tracks.frame])
        back = back + np.add.reduceat(moved, self._firsts)
        return step, -np.einsum('pji,pj->pi', lower_inverse, back)

    def _camera_system(self, system: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        d, frames, prior = self.columns, self.frames, system['prior']
        matrix, gradient = np.diag(prior[0]), prior[1].copy()
        for frame, block in enumerate(system['frames']):
            place = slice(frame * d, (frame + 1) * d)
            matrix[place, place] += block[:d, :d]
            matrix[place, -1] = matrix[-1, place] = block[:d, d]
            gradient[place] += block[:d, d + 1]
            matrix[-1, -1] += block[d, d]
            gradient[-1] += block[d, d + 1]
        scales = np.arange(frames) * d + POSE
        matrix[np.ix_(scales, scales)] += 1e4 / frames**2  # the mean scale stays: the gauge of the world
        return matrix, gradient

    def _solve_free(self, matrix: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Step of the free unknowns, 0 of the fixed ones."""
        linalg = require('scipy.linalg', 'the joint solver')
        free = np.ones(len(gradient), dtype=bool)
        poses = free[:-1].reshape(self.frames, self.columns)
        poses[0 if not self.settings.fixed_poses else slice(None), :POSE] = False
        poses[[len(index) < POSE for index in self._by_frame], :POSE] = False  # too few observations to place a frame
        if self.depth.kind == 'metric':
            poses[:, 7] = False
        free[-1] = not self.settings.fixed_focal
        step = np.zeros_like(gradient)
        reduced = matrix[np.ix_(free, free)]
        reduced[np.diag_indices(len(reduced))] += 1e-9
        step[free] = -linalg.solve(reduced, gradient[free], assume_a='pos', check_finite=False)
        return step

    def _apply(self, state: BundleState, step: np.ndarray, point_step: np.ndarray) -> BundleState:
        blocks = step[:-1].reshape(self.frames, self.columns)
        moved = se3_exp(torch.from_numpy(blocks[:, :POSE].copy())).numpy() @ state.poses
        depth = DepthParameters(state.depth.log_scale + blocks[:, 6], state.depth.shift + blocks[:, 7],
                                state.depth.grid + blocks[:, 8:] if self.settings.with_grid else state.depth.grid)
        return replace(state, poses=moved, log_focal=state.log_focal + float(step[-1]), depth=depth,
                       points=state.points + point_step)


def _gram(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows


def _shared_observations(tracks: Tracks, frames: int) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """For every pair of frames with common points, the observations of these in both."""
    firsts, seconds = [], []
    for offset in range(1, frames):
        same = np.flatnonzero(tracks.point[offset:] == tracks.point[:-offset])
        if not len(same):
            break
        firsts.append(same)
        seconds.append(same + offset)
    if not firsts:
        return {}
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    key = tracks.frame[first] * frames + tracks.frame[second]
    order = np.argsort(key, kind='stable')
    keys, starts = np.unique(key[order], return_index=True)
    groups = zip(np.split(first[order], starts[1:]), np.split(second[order], starts[1:]))
    return {(int(k) // frames, int(k) % frames): group for k, group in zip(keys, groups)}
