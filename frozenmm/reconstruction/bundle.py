"""Joint least squares of cameras, depth parameters and points, with the points eliminated (spec section 12.0, step 3).

Per observation: two residuals of the pixel, one of the logarithmic depth against the frozen prediction, all with Cauchy
weights. Points are eliminated by a Schur complement that is formed per pair of frames.

The prediction errs, and with it the derivative of the depth by the shift, 1 / (d + t). Plain least squares answers with
a shift that is too large and depth that is too flat (attenuation, as in every regression on a noisy variable: Fuller,
Measurement Error Models, 1987). So the gradient takes this derivative at the point's depth, which owes nothing to the
error of the one frame (`Bundle.shift_pull`). For predictions that say little about depth the flat answer is the better
one, so this fades out as the error comes to a quarter of what depth varies by.

The spec frees 25 smooth factors per frame here, too. They are left to the dense stage, which has a finer grid: cameras
come out alike without them, in a system of 8 unknowns per frame in place of 33.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth
from frozenmm.reconstruction.features import Tracks
from frozenmm.reconstruction.frame_system import FrameSystem
from frozenmm.reconstruction.lens import LENS, NO_LENS, distort
from frozenmm.reconstruction.motions import se3_exp

CAUCHY = 4.0
"""Squared width of the Cauchy weights 1 / (1 + e^2 / 4) of errors e in their widths, here and in the other stages."""
POSE = 6
COLUMNS = POSE + 2
"""Unknowns of a frame: pose, logarithmic scale, shift."""
SHARED = 1 + LENS
"""Unknowns of all frames: logarithm of the focal length, and the lens."""
NO_DEPTH = 1e3
"""Width of the logarithmic depth at which it says nothing."""
UNUSABLE = 4.0
"""Variance of log depth over that of the prediction's error at which the shift is not set right any more."""


@dataclass(frozen=True)
class BundleSettings:
    """Widths of residuals and priors.

    Attributes:
        pixel: of the reprojection, at a diagonal of 400 pixels. Narrower than the features' error (0.3), because the
            frozen depth errs by smooth, systematic amounts: against 0.7 the path's error halves on every clip tried.
        log_depth: of the logarithmic depth; wide, because its errors are alike within a frame.
        shift_mean: centre of the prior on the shift, in medians.
        shift: width of the prior on the shift.
        log_focal: width of the prior on the focal length.
        radial: width of the prior on the coefficients of the radial distortion.
        principal: width of the prior on the principal point, in focal lengths.
        fixed_focal: the focal length is given.
        fixed_radial: the radial distortion is given.
        fixed_second: so is its second coefficient alone.
        fixed_principal: the principal point is given.
        fixed_poses: the poses are given.
    """

    pixel: float = 0.15
    log_depth: float = 0.1
    shift_mean: float = 0.3
    shift: float = 1.6
    log_focal: float = 0.3
    radial: float = 0.3
    principal: float = 0.3
    fixed_focal: bool = False
    fixed_radial: bool = True
    fixed_second: bool = False
    fixed_principal: bool = True
    fixed_poses: bool = False


@dataclass
class BundleState:
    """All unknowns.

    Attributes:
        poses: (F, 4, 4) world to camera.
        log_focal: logarithm of the focal length in pixels.
        depth: of every frame.
        points: (P, 3) in the world.
        lens: (4, ) of `lens.distort`.
    """

    poses: np.ndarray
    log_focal: float
    depth: DepthParameters
    points: np.ndarray
    lens: np.ndarray = field(default_factory=NO_LENS.copy)

    @property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return float(np.exp(self.log_focal))


def cauchy_cost(squared: np.ndarray) -> np.ndarray:
    """Robust cost (O, ) of squared residuals (O, ) in their widths.

    >>> cauchy_cost(np.array([0.0, 4.0])).round(3).tolist()
    [0.0, 2.773]
    """
    return CAUCHY * np.log1p(squared / CAUCHY)


class Bundle:
    """Levenberg-Marquardt on tracks and frozen depth.

    Args:
        tracks: ordered by point.
        depth: predictions at the images' size.
        log_focal_prior: centre of the prior.
        unit: pixels per pixel of a 320x240 image.
        settings: widths and which unknowns are free.
        depth_width: (F, ) width of the logarithmic depth of every frame; None: that of the settings.
    """

    def __init__(self, tracks: Tracks, depth: FrozenDepth, *, log_focal_prior: float, unit: float,
                 settings: BundleSettings, depth_width: np.ndarray | None = None) -> None:
        self.tracks, self.depth, self.settings = tracks, depth, settings
        self.log_focal_prior, self.unit = log_focal_prior, unit
        self.frames = len(depth.maps)
        width = np.full(self.frames, settings.log_depth) if depth_width is None else depth_width
        self.known = depth.known_at(tracks.frame, tracks.pixels)
        self.width = np.where(self.known, width[tracks.frame], NO_DEPTH)
        self.values = depth.sample(tracks.frame, tracks.pixels)
        self.centre = np.array([(depth.size[1] - 1) / 2, (depth.size[0] - 1) / 2])
        self._firsts = np.flatnonzero(np.diff(tracks.point, prepend=-1))
        self._by_frame = [np.flatnonzero(tracks.frame == frame) for frame in range(self.frames)]
        self._shared = shared_observations(tracks, self.frames)

    def shared_counts(self) -> np.ndarray:
        """(F, F) number of points that two frames share, 0 on the diagonal."""
        counts = np.zeros((self.frames, self.frames), dtype=int)
        for (a, b), (first, _) in self._shared.items():
            counts[a, b] = counts[b, a] = len(first)
        return counts

    def log_depth(self, state: BundleState) -> tuple[np.ndarray, np.ndarray]:
        """Log M at the observations (O, ), and its derivative by the shift (O, )."""
        frame = self.tracks.frame
        base, slope = self.depth.log_base(self.values, frame, state.depth.shift)
        return base + state.depth.log_scale[frame], slope

    def residuals(self, state: BundleState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points in the camera (O, 3), pixel residuals (O, 2) in pixels and logarithmic depth residuals (O, )."""
        frame = self.tracks.frame
        rotation, shift = state.poses[frame, :3, :3], state.poses[frame, :3, 3]
        points = np.einsum('oij,oj->oi', rotation, state.points[self.tracks.point]) + shift
        z = np.maximum(points[:, 2], NEAREST)
        plane = points[:, :2] / z[:, None]
        pixels = state.focal_px * distort(plane, state.lens) + self.centre - self.tracks.pixels
        return points, pixels, np.log(z) - self.log_depth(state)[0]

    def shift_pull(self, state: BundleState) -> np.ndarray:
        """(F, ) what is added to the gradient by the shifts, so that the derivative is that at the points' depth."""
        points, _, depth = self.residuals(state)
        weight = self.known / (1 + (depth / self.width)**2 / CAUCHY)
        ratio = np.expm1(np.clip(-self.depth.sign * depth, -1, 1))  # of the two derivatives, less 1
        pull = -ratio * self.log_depth(state)[1] * depth / self.width**2
        log_z = np.log(np.maximum(points[:, 2], NEAREST))
        total, pull, error, mean, square = (np.bincount(self.tracks.frame, weight * values, minlength=self.frames)
                                            for values in (np.ones(len(depth)), pull, depth**2, log_z, log_z**2))
        total = np.maximum(total, 1e-9)
        varies = np.maximum(square / total - (mean / total)**2, 1e-9)
        return pull * np.clip(1 - UNUSABLE * error / total / varies, 0, 1)

    def cost(self, state: BundleState) -> float:
        """Robust cost with all priors."""
        _, pixels, depth = self.residuals(state)
        s = self.settings
        total = cauchy_cost((pixels**2).sum(1) / (s.pixel * self.unit)**2).sum()
        total += cauchy_cost((depth / self.width)**2).sum()
        total += (((state.depth.shift - s.shift_mean) / s.shift)**2).sum()
        shared = np.concatenate(([state.log_focal - self.log_focal_prior], state.lens))
        return float(total + ((shared / self._shared_widths())**2).sum())

    def optimise(self, state: BundleState, *, steps: int, tolerance: float = 1e-4) -> tuple[BundleState, float]:
        """Up to `steps` Levenberg-Marquardt steps; ends early where the cost falls by less than `tolerance` of it.

        Each step lowers the cost with the pull on the shifts that its first state has.

        Returns:
            the last state and its cost.
        """
        damping = 1e-4
        for _ in range(steps):
            pull = self.shift_pull(state)
            cost, system = self.cost(state), self._linearise(state, pull)
            fall = 0.0
            for _ in range(6):
                try:
                    trial = self._apply(state, *self._solve(system, damping))
                except np.linalg.LinAlgError:  # nothing holds some unknown; more damping does
                    damping *= 5
                    continue
                fall = cost - self.cost(trial) - 2 * float(pull @ (trial.depth.shift - state.depth.shift))
                if fall > 0:
                    state, damping = trial, max(damping * 0.3, 1e-9)
                    break
                damping *= 5
            if fall < tolerance * cost:
                break
        return state, self.cost(state)

    def _jacobians(self, state: BundleState) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Weighted Jacobians by frame (O, 3, D), focal and lens (O, 3, S), point (O, 3, 3), and residuals (O, 3)."""
        s, frame = self.settings, self.tracks.frame
        points, pixels, depth = self.residuals(state)
        focal, z = state.focal_px, np.maximum(points[:, 2], NEAREST)
        slope = self.log_depth(state)[1]
        plane = points[:, :2] / z[:, None]
        squared = (plane**2).sum(1)
        stretch = 1 + squared * (state.lens[0] + state.lens[1] * squared)
        steeper = 2 * (state.lens[0] + 2 * state.lens[1] * squared)  # twice its derivative by the squared distance
        by_point = np.zeros((len(points), 3, 3))  # derivative by the camera point
        by_point[:, 0, 0] = by_point[:, 1, 1] = focal * stretch / z
        by_point[:, :2, :2] += (steeper * focal / z)[:, None, None] * plane[:, :, None] * plane[:, None]
        by_point[:, :2, 2] = -focal * plane * ((stretch + steeper * squared) / z)[:, None]
        by_point[:, 2, 2] = 1 / z
        residual = np.concatenate((pixels, depth[:, None]), 1)
        width = np.stack((np.full(len(depth), s.pixel * self.unit), self.width), 1)
        errors = np.stack(((pixels**2).sum(1), depth**2), 1) / width**2
        weight = (1 / np.sqrt(1 + errors / CAUCHY) / width)[:, [0, 0, 1]]
        by_frame = np.zeros((len(points), 3, COLUMNS))
        by_frame[:, :, :3] = by_point
        by_frame[:, :, 3:6] = np.cross(points[:, None], by_point)  # -J [Y]x, row by row
        by_frame[:, 2, 6] = -1
        by_frame[:, 2, 7] = -slope
        by_shared = np.zeros((len(points), 3, SHARED))
        by_shared[:, :2, 0] = focal * (stretch[:, None] * plane + state.lens[2:])
        by_shared[:, :2, 1] = focal * squared[:, None] * plane
        by_shared[:, :2, 2] = focal * squared[:, None]**2 * plane
        by_shared[:, 0, 3] = by_shared[:, 1, 4] = focal
        world = by_point @ state.poses[frame, :3, :3]
        return (by_frame * weight[:, :, None], by_shared * weight[:, :, None], world * weight[:, :, None],
                residual * weight)

    def _linearise(self, state: BundleState, pull: np.ndarray) -> dict[str, np.ndarray]:
        """Blocks of the normal equations, with a pull (F, ) on the shifts."""
        cameras, shared, points, residual = self._jacobians(state)
        joined = np.concatenate((cameras, shared, residual[:, :, None]), 2)
        size = joined.shape[2]
        blocks = np.stack([_gram(joined[index].reshape(-1, size)) for index in self._by_frame])
        transposed = points.transpose(0, 2, 1)
        rest = np.concatenate((points, joined[:, :, COLUMNS:]), 2)
        per_point = np.add.reduceat(transposed @ rest, self._firsts)
        return {'frames': blocks, 'cross': transposed @ cameras, 'points': per_point[:, :, :3],
                'point_rest': per_point[:, :, 3:], 'prior': self._prior(state, pull),
                'shared_prior': self._shared_prior(state)}

    def _prior(self, state: BundleState, pull: np.ndarray) -> np.ndarray:
        """Diagonal and gradient (2, F, D) of the priors of the frames, with a pull (F, ) on the shifts."""
        s, prior = self.settings, np.zeros((2, self.frames, COLUMNS))
        prior[0, :, 7], prior[1, :, 7] = 1 / s.shift**2, (state.depth.shift - s.shift_mean) / s.shift**2 + pull
        return prior

    def _shared_prior(self, state: BundleState) -> np.ndarray:
        """Diagonal and gradient (2, S) of the priors of focal length and lens."""
        off = np.concatenate(([state.log_focal - self.log_focal_prior], state.lens))
        return np.stack((np.ones(SHARED), off)) / self._shared_widths()**2

    def _shared_widths(self) -> np.ndarray:
        s = self.settings
        return np.array([s.log_focal, s.radial, s.radial, s.principal, s.principal])

    def _solve(self, blocks: dict[str, np.ndarray], damping: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps of the frames (F, D), of focal length and lens (S, ) and of the points (P, 3)."""
        system, half, half_rest, lower_inverse = self._reduced(blocks, damping)
        step, shared_step = system.solve(*self._free())
        back = half_rest[:, :, SHARED] + half_rest[:, :, :SHARED] @ shared_step
        back = back + np.add.reduceat(np.einsum('oij,oj->oi', half, step[self.tracks.frame]), self._firsts)
        return step, shared_step, -np.einsum('pji,pj->pi', lower_inverse, back)

    def focal_error(self, state: BundleState) -> float:
        """Standard deviation of the logarithm of the focal length, from the reduced normal matrix; 0 where it is given.

        The pixels' width is that of the residuals, not that of the settings.
        """
        if self.settings.fixed_focal:
            return 0.0
        system = self._reduced(self._linearise(state, np.zeros(self.frames)), 1e-9)[0]
        try:
            return self._spread(state) * float(np.sqrt(system.shared_covariance(*self._free())[0, 0]))
        except np.linalg.LinAlgError:  # nothing holds some unknown, so nothing is known of the focal length
            return 1.0

    def turn_errors_deg(self, state: BundleState) -> np.ndarray:
        """Standard deviations (F, ) of the rotations in degrees, as against the frame that is known best.

        From the reduced normal matrix with the focal length held; 0 for clips too long for a dense one, and where poses
        are given.
        """
        system = self._reduced(self._linearise(state, np.zeros(self.frames)), 1e-9)[0]
        covariance = None if self.settings.fixed_poses else system.frame_covariance(self._free()[0])
        if covariance is None:
            return np.zeros(self.frames)
        turns = state.poses[:, :3, :3]
        world = np.einsum('aji,ajbk,bkl->aibl', turns, covariance[:, 3:POSE, :, 3:POSE], turns)
        own = np.einsum('aiai->a', world)
        apart = own[:, None] + own - 2 * np.einsum('aibi->ab', world)
        return np.degrees(self._spread(state) * np.sqrt(np.maximum(apart[np.median(apart, axis=1).argmin()], 0)))

    def _spread(self, state: BundleState) -> float:
        """Standard deviation of the pixels' residuals over the width of the settings, at least 1."""
        pixels = np.abs(self.residuals(state)[1])
        return max(1.4826 * float(np.median(pixels)) / (self.settings.pixel * self.unit), 1.0)

    def _reduced(self, blocks: dict[str, np.ndarray], damping: float,
                 ) -> tuple[FrameSystem, np.ndarray, np.ndarray, np.ndarray]:
        """The system of frames and shared unknowns, and what brings the points back from its steps."""
        system = self._camera_system(blocks, damping)
        hpp = blocks['points'] * (1 + damping * np.eye(3)) + 1e-12 * np.eye(3)
        lower_inverse = np.linalg.inv(np.linalg.cholesky(hpp))
        half = lower_inverse[self.tracks.point] @ blocks['cross']  # (O, 3, D)
        half_rest = lower_inverse @ blocks['point_rest']  # (P, 3, S + 1): focal, lens, gradient
        border = half_rest[self.tracks.point]
        for frame, index in enumerate(self._by_frame):
            rows = half[index].reshape(-1, COLUMNS)
            system.add(frame, frame, -_gram(rows))
            shared = rows.T @ border[index].reshape(-1, SHARED + 1)
            system.border[frame] -= shared[:, :SHARED]
            system.gradient[frame] -= shared[:, SHARED]
        for (a, b), (first, second) in self._shared.items():
            system.add(a, b, -half[first].reshape(-1, COLUMNS).T @ half[second].reshape(-1, COLUMNS))
        rest = _gram(half_rest.reshape(-1, SHARED + 1))
        system.corner -= rest[:SHARED, :SHARED]
        system.shared_gradient -= rest[:SHARED, SHARED]
        return system, half, half_rest, lower_inverse

    def _camera_system(self, blocks: dict[str, np.ndarray], damping: float) -> FrameSystem:
        d, system = COLUMNS, FrameSystem(self.frames, COLUMNS, SHARED)
        for frame, (block, prior) in enumerate(zip(blocks['frames'], blocks['prior'][0])):
            system.add(frame, frame, block[:d, :d] + np.diag(prior))
        system.border += blocks['frames'][:, :d, d:d + SHARED]
        system.gradient += blocks['frames'][:, :d, -1] + blocks['prior'][1]
        rest = blocks['frames'][:, d:, d:].sum(0)
        system.corner += rest[:SHARED, :SHARED] + np.diag(blocks['shared_prior'][0])
        system.shared_gradient += rest[:SHARED, SHARED] + blocks['shared_prior'][1]
        system.damp(damping)
        return system

    def _free(self) -> tuple[np.ndarray, np.ndarray]:
        """Which unknowns of the frames (F, D) and of all frames (S, ) change."""
        free = np.ones((self.frames, COLUMNS), dtype=bool)
        if self.settings.fixed_poses:
            free[:, :POSE] = False
        else:  # the gauge of the world
            free[0, :POSE + 1] = False
        free[[len(index) < POSE for index in self._by_frame], :POSE + 1] = False  # too few to place a frame
        if self.depth.kind == 'metric':
            free[:, 7] = False
        s = self.settings
        return free, ~np.array([s.fixed_focal, s.fixed_radial, s.fixed_radial or s.fixed_second, s.fixed_principal,
                                s.fixed_principal])

    def _apply(self, state: BundleState, step: np.ndarray, shared: np.ndarray, point_step: np.ndarray) -> BundleState:
        moved = se3_exp(torch.from_numpy(step[:, :POSE].copy())).numpy() @ state.poses
        depth = DepthParameters(state.depth.log_scale + step[:, 6], state.depth.shift + step[:, 7])
        return replace(state, poses=moved, log_focal=state.log_focal + float(shared[0]), depth=depth,
                       points=state.points + point_step, lens=state.lens + shared[1:])


def _gram(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows


def shared_observations(tracks: Tracks, frames: int) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
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
