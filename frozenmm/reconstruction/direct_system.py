"""Photometric and geometric residuals of a clip, and their normal equations with the points' depths eliminated.

Every frame hosts points. The depth of a point is free, near its frame's depth map; it shows the same brightness in the
partners of its frame and lies near their depth maps. Statistically this is the model of the tracks (`bundle.py`) with
brightness in place of the places of features (spec sections 12.1 to 12.6).
"""
from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from frozenmm.reconstruction.bundle import CAUCHY, POSE, BundleSettings
from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.depth_model import GRID, SMALLEST, FrozenDepth
from frozenmm.reconstruction.frame_system import FrameSystem
from frozenmm.reconstruction.motions import invert_rigid, se3_exp, skew
from frozenmm.reconstruction.photometry import PATCH, Sight, View, brightness, hat_rows, see

DEPTH = 2 + GRID * GRID
COLUMNS = POSE + DEPTH
DARKEST = 2 / 255
"""Least standard deviation of brightness differences."""
EDGE = 0.05
"""Slopes of log depth per pixel above it are edges, where the slope says nothing about the surface."""
HOSTS_AT_ONCE = 8


@dataclass(frozen=True)
class DirectWidths:
    """Widths and weights of the residuals.

    Attributes:
        bundle: its priors on shift and focal length, as for tracks.
        log_depth: of the logarithmic depth.
        grid: of the grid's logarithmic factors.
        photometric: weight of a patch.
        geometric: weight of a partner's depth.
        hidden: points farther than so much (in log depth) behind the partner's surface do not count.
    """

    bundle: BundleSettings = field(default_factory=BundleSettings)
    log_depth: float = 0.05
    grid: float = 0.06
    photometric: float = 5.0
    geometric: float = 0.3
    hidden: float = 0.25


@dataclass
class DirectState:
    """All unknowns, float64.

    Attributes:
        poses: (F, 4, 4) world to camera.
        log_focal: logarithm of the focal length in pixels.
        depth: (F, 27) log scale, shift in medians, 25 logarithmic factors of the grid.
        log_points: (F, N) logarithmic depth of every frame's points.
    """

    poses: Tensor
    log_focal: float
    depth: Tensor
    log_points: Tensor


@dataclass
class Looks:
    """Residuals of h hosts in K partners each and what their derivatives need.

    Attributes:
        sight: where the points lie.
        seen: (h, K, N, O) brightness in the partner.
        photometric: (h, K, N, O) its difference from the host's.
        image_gradient: (h, K, N, O, 2) of the partner's image, by full-size pixels.
        patch_weight: (h, K, N) of the patches' residuals.
        geometric: (h, K, N) log z of the point less the partner's log depth.
        depth_gradient: (h, K, N, 2) of the partner's log depth.
        depth_weight: (h, K, N).
        depth_rows: (h, K, N, 27) of the partner's log depth by its parameters.
        own: (h, N) log depth of the point less the host's log depth.
        own_weight: (h, N).
        own_rows: (h, N, 27).
    """

    sight: Sight
    seen: Tensor
    photometric: Tensor
    image_gradient: Tensor
    patch_weight: Tensor
    geometric: Tensor
    depth_gradient: Tensor
    depth_weight: Tensor
    depth_rows: Tensor
    own: Tensor
    own_weight: Tensor
    own_rows: Tensor


class DirectSystem:
    """Residuals and normal equations at one level.

    Args:
        view: of the images, brightness in 0..1.
        depth_view: of the predictions in medians, at full size.
        frozen: the predictions.
        points: (F, N, 2) full-size pixels of the hosts' points.
        log_focal_prior: centre of the prior.
        widths: of the residuals.
        valid: (F, N) bool, points that count.

    Attributes:
        partners: (F, K) indexes, see `between`; at first every frame has itself only.
        counts: (F, K) bool, which of them are partners.
    """

    def __init__(self, view: View, depth_view: View, frozen: FrozenDepth, points: Tensor, *, log_focal_prior: float,
                 widths: DirectWidths, valid: Tensor | None = None) -> None:
        self.view, self.depth_view, self.frozen, self.points = view, depth_view, frozen, points
        self.widths, self.log_focal_prior = widths, log_focal_prior
        frames = torch.arange(len(points))
        self.partners = frames[:, None]
        self.counts = self.partners != frames[:, None]
        self.valid = torch.ones(points.shape[:2], dtype=torch.bool) if valid is None else valid
        patch = points[:, :, None] + points.new_tensor(PATCH) * view.step
        self.brightness = view.look(frames[:, None, None], patch)[..., 0]
        self.values = depth_view.look(frames[:, None], points)[..., 0]
        self.hats = hat_rows(points, frozen.size)
        self.log_medians = torch.from_numpy(np.log(frozen.medians)) * frozen.sign

    def between(self, partners: Tensor) -> DirectSystem:
        """The same level with partners (F, K); a frame that lacks some has itself there, which does not count."""
        other = copy.copy(self)
        other.partners = partners
        other.counts = partners != torch.arange(len(partners))[:, None]
        return other

    def log_depth(self, values: Tensor, frame: Tensor, hats: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Log M (..., N) and its rows (..., N, 27) by the frame's parameters, of sampled predictions.

        Args:
            values: (..., N) predictions in medians.
            frame: (...) indexes of the frames.
            hats: (..., N, 25).
            depth: (F, 27) parameters.
        """
        chosen, sign = depth[frame], self.frozen.sign
        total = (values + chosen[..., None, 1]).clamp(min=SMALLEST)
        logarithm = sign * total.log() + (self.log_medians[frame] + chosen[..., 0])[..., None]
        logarithm = logarithm + (hats @ chosen[..., 2:, None])[..., 0]
        return logarithm, torch.cat((torch.ones_like(total)[..., None], (sign / total)[..., None], hats), -1)

    def surface(self, depth: Tensor) -> Tensor:
        """Log M (F, N) at every frame's points, of its own parameters (F, 27)."""
        return self.log_depth(self.values, torch.arange(len(self.points)), self.hats, depth)[0]

    def look(self, state: DirectState, hosts: Tensor, noise: float | None) -> Looks:
        """Residuals and weights of some hosts (h, ); `noise` None: weights of brightness only say what is seen."""
        partners, s = self.partners[hosts], self.widths
        relative = state.poses[partners] @ invert_rigid(state.poses[hosts])[:, None]
        focal = float(np.exp(state.log_focal))
        log_points = state.log_points[hosts]
        sight = see(self.points[hosts], log_points, relative, focal, self.frozen.size, step=self.view.step)
        seen = self.view.look(partners[:, :, None, None], sight.pixels)
        middle = sight.pixels[..., 0, :]
        predicted = self.depth_view.look(partners[:, :, None], middle)
        surface, rows = self.log_depth(predicted[..., 0], partners, hat_rows(middle, self.frozen.size), state.depth)
        geometric = sight.points[..., 0, 2].clamp(min=NEAREST).log() - surface
        slope = predicted[..., 1:] * rows[..., 1:2]
        slope = torch.where(slope.abs().amax(-1, keepdim=True) < EDGE, slope, torch.zeros_like(slope))
        visible = sight.inside & self.counts[hosts][..., None] & self.valid[hosts][:, None] & (geometric < s.hidden)
        own_surface, own_rows = self.log_depth(self.values[hosts], hosts, self.hats[hosts], state.depth)
        own, width = log_points - own_surface, s.log_depth
        gain, offset = self._brightness(seen[..., 0], hosts, visible)
        adapted = gain[..., None, None] * self.brightness[hosts][:, None] + offset[..., None, None]
        difference = seen[..., 0] - adapted
        patch_weight = visible.to(difference)
        if noise is not None:
            squared = difference.square().mean(-1) / noise**2
            patch_weight = patch_weight * s.photometric / (1 + squared / CAUCHY) / (noise**2 * len(PATCH))
        depth_weight = visible * s.geometric / (1 + (geometric / width).square() / CAUCHY) / width**2
        own_weight = self.valid[hosts] / (1 + (own / width).square() / CAUCHY) / width**2
        return Looks(sight, seen[..., 0], difference, seen[..., 1:], patch_weight, geometric, slope, depth_weight, rows,
                     own, own_weight, own_rows)

    def _brightness(self, seen: Tensor, hosts: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and offset (h, K); fitted again without the patches that differ much from the first fit."""
        own, weight = self.brightness[hosts], visible.to(seen)
        for _ in range(2):
            gain, offset = brightness(seen, own, weight)
            off = (seen - gain[..., None, None] * own[:, None] - offset[..., None, None]).abs().mean(-1)
            typical = (off * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1e-9)
            weight = visible / (1 + (off / typical.clamp(min=DARKEST)).square())
        return gain, offset

    def noise(self, state: DirectState) -> float:
        """Standard deviation of brightness differences, from their median."""
        found = []
        for hosts in self._chunks():
            looks = self.look(state, hosts, None)
            found.append(looks.photometric.square().mean(-1).sqrt()[looks.patch_weight > 0])
        values = torch.cat(found)
        return max(1.2 * float(values.median()), DARKEST) if len(values) else DARKEST

    def cost(self, state: DirectState, noise: float, seen: Tensor) -> float:
        """Robust cost; a patch that was seen (F, K, N) and is not any more costs as much as a bad one."""
        s, total = self.widths, 0.0
        width = s.log_depth
        for hosts in self._chunks():
            looks = self.look(state, hosts, noise)
            squared = looks.photometric.square().mean(-1) / noise**2
            both = s.photometric * (squared / CAUCHY).log1p() + s.geometric * (
                (looks.geometric / width).square() / CAUCHY).log1p()
            there = (looks.patch_weight > 0) & seen[hosts]
            lost = seen[hosts] & ~there
            total += CAUCHY * float((both * there).sum() + 2.0 * (s.photometric + s.geometric) * lost.sum())
            own = ((looks.own / width).square() / CAUCHY).log1p() * self.valid[hosts]
            total += CAUCHY * float(own.sum())
        b, depth, grid = s.bundle, state.depth, state.depth[:, 2:] / s.grid
        total += float(grid.square().sum() + ((depth[:, 1] - b.shift_mean) / b.shift).square().sum())
        return total + ((state.log_focal - self.log_focal_prior) / b.log_focal)**2

    def _chunks(self) -> tuple[Tensor, ...]:
        return torch.arange(len(self.points)).split(HOSTS_AT_ONCE)

    def optimise(self, state: DirectState, *, steps: int, free_shift: bool = True, free_grid: bool = True,
                 free_focal: bool = True, fixed_poses: bool = False, tolerance: float = 1e-4,
                 ) -> tuple[DirectState, float]:
        """Up to `steps` Levenberg-Marquardt steps.

        Returns:
            the best state and the standard deviation of brightness there.
        """
        damping = 1e-4
        free = np.ones((len(self.points), COLUMNS), dtype=bool)
        free[:, POSE + 2:] = free_grid
        free[:, :POSE] = not fixed_poses
        free[0, :POSE + (0 if fixed_poses else 1)] = False
        free[:, POSE + 1] = free_shift and self.frozen.kind != 'metric'
        noise = self.noise(state)
        for _ in range(steps):
            noise = self.noise(state)
            linear = self.linearise(state, noise)
            cost = self.cost(state, noise, linear['seen'])
            for _ in range(5):
                trial = self._step(state, linear, damping, free, free_focal)
                trial_cost = self.cost(trial, noise, linear['seen'])
                if trial_cost < cost:
                    break
                damping *= 6
            else:
                break
            state, damping = trial, max(damping * 0.3, 1e-7)
            if (cost - trial_cost) < tolerance * cost:
                break
        return state, noise

    def linearise(self, state: DirectState, noise: float) -> dict:
        """Per host: local matrix, gradient, rows of the eliminated depths; and which patches are seen (F, K, N)."""
        parts = [self._linearise(state, hosts, noise) for hosts in self._chunks()]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _linearise(self, state: DirectState, hosts: Tensor, noise: float) -> dict[str, Tensor]:
        looks = self.look(state, hosts, noise)
        sight, h, k, n = looks.sight, len(hosts), self.partners.shape[1], self.points.shape[1]
        weighted = looks.patch_weight[..., None, None]
        rows = torch.cat((sight.rows(looks.image_gradient), looks.photometric[..., None]), -1)
        photometric = (rows * weighted).flatten(2, 3).mT @ rows.flatten(2, 3)  # (h, K, 9, 9)
        by_point = (rows * rows[..., 7:8] * weighted).sum(3)  # (h, K, N, 9)
        one = replace(sight, turned=sight.turned[..., :1, :], points=sight.points[..., :1, :],
                      pixels=sight.pixels[..., :1, :])
        by_z = 1 / one.points[..., 2].clamp(min=NEAREST)
        depth = one.rows(-looks.depth_gradient[..., None, :], by_z)[..., 0, :]
        # columns: pose 6, the partner's depth 27, focal, log depth of the point, residual
        full = torch.cat((depth[..., :6], -looks.depth_rows, depth[..., 6:], looks.geometric[..., None]), -1)
        scaled = full * looks.depth_weight[..., None]
        geometric = scaled.mT @ full
        by_point_depth = (scaled * full[..., 34:35])
        pick = [*range(6), 33, 34, 35]
        geometric[..., torch.tensor(pick)[:, None], torch.tensor(pick)] += photometric
        by_point_depth[..., pick] += by_point
        own = torch.cat((-looks.own_rows, torch.ones_like(looks.own)[..., None], looks.own[..., None]), -1)
        own_scaled = own * looks.own_weight[..., None]
        size = DEPTH + k * (POSE + DEPTH) + 1  # host's depth, partners, focal
        matrix, gradient = rows.new_zeros(h, size, size), rows.new_zeros(h, size)
        block = own_scaled.mT @ own
        matrix[:, :DEPTH, :DEPTH], gradient[:, :DEPTH] = block[:, :DEPTH, :DEPTH], block[:, :DEPTH, -1]
        cross = rows.new_zeros(h, n, size)
        cross[..., :DEPTH] = own_scaled[..., :DEPTH]
        for index in range(k):
            place = slice(DEPTH + index * 33, DEPTH + (index + 1) * 33)
            matrix[:, place, place] = geometric[:, index, :33, :33]
            matrix[:, place, -1] = geometric[:, index, :33, 33]
            matrix[:, -1, place] = geometric[:, index, :33, 33]
            gradient[:, place] = geometric[:, index, :33, 35]
            cross[..., place] = by_point_depth[:, index, :, :33]
        matrix[:, -1, -1], gradient[:, -1] = geometric[..., 33, 33].sum(1), geometric[..., 33, 35].sum(1)
        cross[..., -1] = by_point_depth[..., 33].sum(1)
        point = torch.stack((by_point_depth[..., 34].sum(1) + own_scaled[..., DEPTH],
                             by_point_depth[..., 35].sum(1) + own_scaled[..., DEPTH + 1]), -1)
        return {'matrix': matrix, 'gradient': gradient, 'cross': cross, 'point': point,
                'seen': looks.patch_weight > 0}

    def _step(self, state: DirectState, linear: dict[str, Tensor], damping: float, free: np.ndarray,
              free_focal: bool) -> DirectState:
        curvature = linear['point'][..., 0] * (1 + damping) + 1e-9
        halved = linear['cross'] / curvature[..., None]
        matrix = linear['matrix'] - halved.mT @ linear['cross']
        gradient = linear['gradient'] - (halved * linear['point'][..., 1:]).sum(1)
        system = FrameSystem(len(self.points), COLUMNS, 1)
        jacobians = self._to_global(state)
        spread = (jacobians.mT @ matrix @ jacobians).numpy()
        slopes = (jacobians.mT @ gradient[..., None])[..., 0].numpy()
        self._add_priors(system, state)
        for host, frames in enumerate(torch.cat((torch.arange(len(self.points))[:, None], self.partners), 1).tolist()):
            used = [0] + [i + 1 for i, counts in enumerate(self.counts[host].tolist()) if counts]
            places = {i: slice(i * COLUMNS, (i + 1) * COLUMNS) for i in used}
            for i in used:
                system.gradient[frames[i]] += slopes[host, places[i]]
                system.border[frames[i]] += spread[host, places[i], -1:]
                for j in used:
                    if j >= i:
                        system.add(frames[i], frames[j], spread[host, places[i], places[j]])
            system.corner += spread[host, -1:, -1:]
            system.shared_gradient += slopes[host, -1:]
        system.damp(damping)
        step, shared = system.solve(free, np.array([free_focal]))
        moved = torch.from_numpy(step)
        local = torch.cat((moved[:, None], moved[self.partners]), 1).flatten(1)
        local = torch.cat((local, torch.full((len(local), 1), float(shared[0]), dtype=local.dtype)), 1)
        local = (jacobians @ local[..., None])[..., 0]
        back = -(linear['point'][..., 1] + (linear['cross'] @ local[..., None])[..., 0]) / curvature
        return DirectState(se3_exp(moved[:, :POSE]) @ state.poses, state.log_focal + float(shared[0]),
                           state.depth + moved[:, POSE:], state.log_points + back.clamp(-0.5, 0.5))

    def _to_global(self, state: DirectState) -> Tensor:
        """(F, local, (1 + K) 33 + 1): local unknowns (relative poses) from those of host and partners."""
        frames, k = self.partners.shape
        relative = state.poses[self.partners] @ invert_rigid(state.poses)[:, None]
        rotation, shift = relative[..., :3, :3], skew(relative[..., :3, 3])
        adjoint = torch.cat((torch.cat((rotation, shift @ rotation), -1),
                             torch.cat((torch.zeros_like(rotation), rotation), -1)), -2)
        jacobian = state.poses.new_zeros(frames, DEPTH + k * COLUMNS + 1, (1 + k) * COLUMNS + 1)
        jacobian[:, :DEPTH, POSE:COLUMNS] = torch.eye(DEPTH, dtype=jacobian.dtype)
        for index in range(k):
            row, column = DEPTH + index * COLUMNS, (1 + index) * COLUMNS
            jacobian[:, row:row + COLUMNS, column:column + COLUMNS] = torch.eye(COLUMNS, dtype=jacobian.dtype)
            jacobian[:, row:row + POSE, :POSE] = -adjoint[:, index]
        jacobian[:, -1, -1] = 1
        return jacobian

    def _add_priors(self, system: FrameSystem, state: DirectState) -> None:
        b, grid, depth = self.widths.bundle, self.widths.grid, state.depth.numpy()
        diagonal, pull = np.zeros((len(depth), COLUMNS)), np.zeros((len(depth), COLUMNS))
        diagonal[:, POSE + 1], pull[:, POSE + 1] = 1 / b.shift**2, (depth[:, 1] - b.shift_mean) / b.shift**2
        diagonal[:, POSE + 2:], pull[:, POSE + 2:] = 1 / grid**2, depth[:, 2:] / grid**2
        for frame, values in enumerate(diagonal):
            system.add(frame, frame, np.diag(values))
        system.gradient += pull
        system.corner += 1 / b.log_focal**2
        system.shared_gradient += (state.log_focal - self.log_focal_prior) / b.log_focal**2
