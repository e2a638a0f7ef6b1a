"""Mode `direct`: poses, focal length and depth from brightness and frozen depth, without features (spec section 12)."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from frozenmm.reconstruction.bundle import CAUCHY
from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.direct_system import DARKEST, DEPTH, DirectState, DirectSystem, DirectWidths
from frozenmm.reconstruction.motions import invert_rigid, se3_exp
from frozenmm.reconstruction.photometry import View, image_shift, textured_points

Report = Callable[[str, int, int], None]
FINEST_SIDE = 240
"""Shorter side in pixels at which brightness is compared at most."""
TYPICAL = 0.15
"""Standard deviation of brightness differences while a pose is sought, in those of brightness itself."""


@dataclass(frozen=True)
class DirectSettings:
    """Settings of the direct solver.

    Attributes:
        widths: of the residuals.
        points: about so many per frame.
        near: partners up to this distance in time.
        far: further partners per frame, by overlap.
        overlap: least share of points that a far partner sees.
        chain_steps: of the search for one pose, per level.
        start_steps: joint steps per start.
        steps: joint steps per level, coarse to fine.
    """

    widths: DirectWidths = field(default_factory=DirectWidths)
    points: int = 700
    near: int = 2
    far: int = 3
    overlap: float = 0.35
    chain_steps: int = 12
    start_steps: int = 5
    steps: tuple[int, ...] = (8, 8, 6)


class DirectSolver:
    """Alignment by brightness.

    Args:
        images: (F, H, W, 3) uint8.
        frozen: predictions at the images' size.
        settings: of the solver.
        log_focal_prior: centre of the prior on the focal length.
        invalid: (F, H, W) bool, pixels that do not count.
    """

    def __init__(self, images: np.ndarray, frozen: FrozenDepth, settings: DirectSettings, *, log_focal_prior: float,
                 invalid: np.ndarray | None = None) -> None:
        self.settings, self.frozen, self.log_focal_prior = settings, frozen, log_focal_prior
        grey = torch.from_numpy(images).double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64) / 255
        finest = max(1, round(min(frozen.size) / FINEST_SIDE))
        self.steps = [finest * factor for factor in (8, 4, 2, 1)]
        self.views = {step: View(grey, step) for step in self.steps}
        medians = torch.from_numpy(frozen.medians)[:, None, None]
        self.depth_view = View(torch.from_numpy(frozen.maps) / medians, 1)
        self.invalid = None if invalid is None else torch.from_numpy(invalid)
        self._shifts: dict[tuple[int, int], tuple[float, float]] = {}
        self._systems = {step: self._level(step) for step in self.steps}

    def system(self, step: int, partners: Tensor) -> DirectSystem:
        """Residuals at a level."""
        return self._systems[step].between(partners)

    def _level(self, step: int) -> DirectSystem:
        points = textured_points(self.views[step], self.settings.points, self.invalid)
        frames, valid = torch.arange(len(points))[:, None], None
        if self.invalid is not None:
            place = points.round().long()
            valid = ~self.invalid[frames, place[..., 1].clamp(max=self.frozen.size[0] - 1),
                                  place[..., 0].clamp(max=self.frozen.size[1] - 1)]
        return DirectSystem(self.views[step], self.depth_view, self.frozen, points, frames, valid=valid,
                            log_focal_prior=self.log_focal_prior, widths=self.settings.widths)

    def place(self, state: DirectState, frame: int, hosts: list[int], guesses: list[Tensor],
              ) -> tuple[DirectState, float]:
        """Pose and scale of one frame against hosts whose poses and depth hold.

        Args:
            state: of all frames.
            frame: to be placed.
            hosts: frames to compare with.
            guesses: poses (4, 4) to start from.

        Returns:
            the state with the frame's new pose and scale, and the share of patches that fit.
        """
        partners = torch.arange(len(state.poses))[:, None].clone()
        partners[hosts] = frame
        best = None
        for guess in guesses:
            moved = replace(state, poses=state.poses.clone())
            moved.poses[frame] = guess
            cost = np.inf
            for step in self.steps[:1]:
                moved, cost, _ = self._search(self.system(step, partners), moved, frame, hosts)
            if best is None or cost < best[0]:
                best = (cost, moved)
        state = best[1]
        for step in self.steps[1:3]:
            state, _, share = self._search(self.system(step, partners), state, frame, hosts)
        return state, share

    def _search(self, system: DirectSystem, state: DirectState, frame: int, hosts: list[int],
                ) -> tuple[DirectState, float, float]:
        chosen, damping = torch.tensor(hosts), 1e-3
        surface = system.log_depth(system.values, torch.arange(len(state.poses)), system.hats, state.depth)[0]
        state = replace(state, log_points=surface)
        best, noise = np.inf, max(TYPICAL * float(self.views[system.view.step].table[:, 0].std()), DARKEST)
        for _ in range(self.settings.chain_steps):
            looks = system.look(state, chosen, None)
            seen = (looks.sight.inside & system.valid[chosen][:, None])[:, 0]  # (h, N), whatever the depth says
            off = looks.photometric[:, 0].square().mean(-1)
            weight = seen / (1 + off / noise**2 / CAUCHY)
            lost = 1 - seen.double().mean()
            cost = float(((off / noise**2 / CAUCHY).log1p() * seen).sum() / seen.sum().clamp(min=1) + lost)
            if cost < best:
                kept, best_before, best = state.poses[frame], best, cost
                damping = max(damping * 0.3, 1e-6)
                rows = looks.sight.rows(looks.image_gradient)[:, 0, :, :, :6]
                weighted = rows * weight[..., None, None]
                matrix = torch.einsum('hnoi,hnoj->ij', weighted, rows)
                slope = torch.einsum('hnoi,hno->i', weighted, looks.photometric[:, 0])
                if best_before - best < 1e-4:
                    break
            else:
                damping *= 10
            step = torch.linalg.solve(matrix + torch.diag(matrix.diagonal() * damping + 1e-9), -slope)
            poses = state.poses.clone()
            poses[frame] = se3_exp(step) @ kept
            state = replace(state, poses=poses)
        poses = state.poses.clone()
        poses[frame] = kept
        state = replace(state, poses=poses, depth=state.depth.clone())
        looks = system.look(state, chosen, None)
        seen = (looks.sight.inside & system.valid[chosen][:, None])[:, 0]
        if bool(seen.any()):
            state.depth[frame, 0] += looks.geometric[:, 0][seen].median()
        fit = (looks.photometric[:, 0].square().mean(-1).sqrt() < 3 * noise) & seen
        return state, best, float(fit.double().mean())

    def chain(self, log_focal: float, shift: float, root: int = 0) -> DirectState:
        """Frames placed one by one, from the root to both ends."""
        frames = len(self.frozen.maps)
        depth = torch.zeros(frames, DEPTH, dtype=torch.float64)
        depth[:, 1] = 0.0 if self.frozen.kind == 'metric' else shift
        system = self.system(self.steps[0], torch.arange(frames)[:, None])
        surface = system.log_depth(system.values, torch.arange(frames), system.hats, depth)[0]
        depth[:, 0] = -surface.median(1).values
        poses = torch.eye(4, dtype=torch.float64).expand(frames, 4, 4).clone()
        state = DirectState(poses, log_focal, depth, surface)
        for order in (range(root + 1, frames), range(root - 1, -1, -1)):
            way = 1 if order.step > 0 else -1
            for frame in order:
                before = [f for f in (frame - way, frame - 2 * way) if 0 <= f < frames and (f - root) * way >= 0]
                last = state.poses[before[0]]
                guesses = [last, self._turned(before[0], frame, state.log_focal) @ last]
                if len(before) > 1:
                    guesses.append(last @ invert_rigid(state.poses[before[1]]) @ last)
                state, _ = self.place(state, frame, before, guesses)
        return state

    def _turned(self, before: int, frame: int, log_focal: float) -> Tensor:
        """Rotation (4, 4) that shifts the image of `before` as it moved as a whole until `frame`."""
        step = self.steps[0]
        height, width = self.views[step].size
        small = self.views[step].table[:, 0].reshape(-1, height, width)
        if (before, frame) not in self._shifts:
            self._shifts[before, frame] = image_shift(small[before], small[frame])
        du, dv = (value * step / float(np.exp(log_focal)) for value in self._shifts[before, frame])
        return se3_exp(torch.tensor([0.0, 0.0, 0.0, -np.arctan(dv), np.arctan(du), 0.0], dtype=torch.float64))

    def partners(self, state: DirectState | None, near: int, far: int) -> Tensor:
        """(F, K) neighbours in time and, of the rest, the frames that see most of a frame's points."""
        frames = len(self.frozen.maps)
        index = torch.arange(frames)
        offsets = torch.tensor([o for d in range(1, near + 1) for o in (-d, d)])
        found = index[:, None] + offsets
        found = torch.where((found >= 0) & (found < frames), found, index[:, None])
        if state is None or not far:
            return found
        shares = self._overlap(state)
        shares[(index[:, None] - index).abs() <= near] = 0
        best, others = shares.topk(min(far, frames), dim=1)
        return torch.cat((found, torch.where(best > self.settings.overlap, others, index[:, None])), 1)

    def _overlap(self, state: DirectState) -> Tensor:
        """(F, F) share of a frame's points that lie in another's image, less what time sets apart."""
        frames = len(self.frozen.maps)
        every = torch.arange(frames).expand(frames, frames)
        system = self.system(self.steps[0], every)
        surface = system.log_depth(system.values, torch.arange(frames), system.hats, state.depth)[0]
        state = replace(state, log_points=surface)
        shares = []
        for hosts in torch.arange(frames).split(2):
            looks = system.look(state, hosts, None)
            shares.append((looks.patch_weight > 0).double().mean(-1))
        # of frames that see as much, the more distant one in time tells more
        return torch.cat(shares)

    def refine(self, state: DirectState, step: int, partners: Tensor, *, steps: int, free_shift: bool, free_grid: bool,
               free_focal: bool = True, fixed_poses: bool = False) -> tuple[DirectState, DirectSystem, float]:
        """Joint steps at one level; the points start on the depth maps."""
        system = self.system(step, partners)
        surface = system.log_depth(system.values, torch.arange(len(partners)), system.hats, state.depth)[0]
        state = replace(state, log_points=surface)
        state, noise = system.optimise(state, steps=steps, free_shift=free_shift, free_grid=free_grid,
                                       free_focal=free_focal, fixed_poses=fixed_poses)
        return state, system, noise
