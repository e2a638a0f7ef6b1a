"""Mode `direct`: poses, focal length and depth from brightness and frozen depth, without features (spec section 12)."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.reconstruction.bundle import CAUCHY, BundleState
from frozenmm.reconstruction.dense_stage import Cameras, DenseSettings, DenseStage, Marks
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth
from frozenmm.reconstruction.direct_system import DARKEST, DEPTH, DirectState, DirectSystem, DirectWidths
from frozenmm.reconstruction.frames import Progress
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.motions import invert_rigid, se3_exp
from frozenmm.reconstruction.photometry import View, image_shift, textured_points

FINEST_SIDE = 240
"""Shorter side in pixels at which brightness is compared at most."""
FOCAL_RATIOS = (0.79, 1.2)
CANDIDATES = 40
ENOUGH_POINTS = 30
RESCUED_SHARE = 0.5
"""Least share of patches that must fit where a frame is placed by brightness."""
SCALES = torch.tensor([2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 50.0, 80.0, 120.0], dtype=torch.float64)
"""Median depths to try under given poses, over the mean step of the camera."""
COMPARED_NOISE = 0.03
"""Standard deviation of brightness with which starts are compared."""
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
        start_shift: shift of every frame at the start, in medians. It is freed at the finest level only, and not
            together with the grid: where the agreement of depths outweighs brightness, flat depth agrees best.
        start_steps: joint steps per start.
        steps: joint steps at the finest level, before and after the grid is freed.
        alike: least correlation of brightness between the points of a frame and its best partner.
        dense: settings of the dense stage.
        mark_error: error there of a point's logarithmic depth.
    """

    widths: DirectWidths = field(default_factory=DirectWidths)
    points: int = 700
    near: int = 2
    far: int = 3
    overlap: float = 0.35
    chain_steps: int = 12
    start_shift: float = 0.3
    start_steps: int = 5
    steps: tuple[int, int] = (5, 6)
    alike: float = 0.6
    dense: DenseSettings = field(default_factory=DenseSettings)
    mark_error: float = 0.02


@dataclass
class DirectSolution:
    """What the solver found.

    Attributes:
        state: all unknowns.
        depth: (F, H, W) z-depth in the unit of the poses.
        found: (F, ) points that a partner sees, per frame.
        inliers: (F, ) of these, the ones whose brightness fits.
        likeness: (F, ) correlation of brightness with the best partner.
    """

    state: DirectState
    depth: np.ndarray
    found: np.ndarray
    inliers: np.ndarray
    likeness: np.ndarray


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
        self.steps = [finest * factor for factor in (8, 4, 2)]
        self.views = {step: View(grey, step) for step in self.steps}
        medians = torch.from_numpy(frozen.medians)[:, None, None]
        self.depth_view = View(torch.from_numpy(frozen.maps).double() / medians, 1)
        self.invalid = None if invalid is None else torch.from_numpy(invalid)
        self._shifts: dict[tuple[int, int], tuple[float, float]] = {}
        self._systems = {step: self._level(step) for step in self.steps}

    def system(self, step: int, partners: Tensor) -> DirectSystem:
        """Residuals at a level, between every frame and its partners (F, K)."""
        return self._systems[step].between(partners)

    def _level(self, step: int) -> DirectSystem:
        points = textured_points(self.views[step], self.settings.points, self.invalid)
        valid = None
        if self.invalid is not None:
            frames, place = torch.arange(len(points))[:, None], points.round().long()
            valid = ~self.invalid[frames, place[..., 1].clamp(max=self.frozen.size[0] - 1),
                                  place[..., 0].clamp(max=self.frozen.size[1] - 1)]
        return DirectSystem(self.views[step], self.depth_view, self.frozen, points, valid=valid,
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
        tried: list[tuple[float, DirectState]] = []
        for guess in guesses:
            moved = replace(state, poses=state.poses.clone())
            moved.poses[frame] = guess
            moved, cost, _ = self._search(self.system(self.steps[0], partners), moved, frame, hosts)
            tried.append((cost, moved))
        state = min(tried, key=itemgetter(0))[1]
        for step in self.steps[1:]:
            state, _, share = self._search(self.system(step, partners), state, frame, hosts)
        return state, share

    def _search(self, system: DirectSystem, state: DirectState, frame: int, hosts: list[int],
                ) -> tuple[DirectState, float, float]:
        chosen, damping = torch.tensor(hosts), 1e-3
        state = replace(state, log_points=system.surface(state.depth))
        best, noise = np.inf, max(TYPICAL * self._contrast(system.view.step), DARKEST)
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

    def _flat(self, log_focal: float, shift: float) -> DirectState:
        """All cameras in one place, every frame's median depth 1."""
        frames = len(self.frozen.maps)
        depth = torch.zeros(frames, DEPTH, dtype=torch.float64)
        depth[:, 1] = 0.0 if self.frozen.kind == 'metric' else shift
        surface = self._systems[self.steps[0]].surface(depth)
        depth[:, 0] = -surface.median(1).values
        return DirectState(torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1), log_focal, depth, surface)

    def chain(self, log_focal: float, shift: float, root: int = 0) -> DirectState:
        """Frames placed one by one, from the root to both ends."""
        frames, state = len(self.frozen.maps), self._flat(log_focal, shift)
        for order in (range(root + 1, frames), range(root - 1, -1, -1)):
            way = 1 if order.step > 0 else -1
            for frame in order:
                before = [f for f in (frame - way, frame - 2 * way) if 0 <= f < frames and (f - root) * way >= 0]
                last = state.poses[before[0]]
                guesses = [last, self.turned(before[0], frame, state.log_focal) @ last]
                if len(before) > 1:
                    guesses.append(last @ invert_rigid(state.poses[before[1]]) @ last)
                state, _ = self.place(state, frame, before, guesses)
        return state

    def turned(self, before: int, frame: int, log_focal: float) -> Tensor:
        """Rotation (4, 4) that shifts the image of `before` as it moved as a whole until `frame`."""
        step = self.steps[0]
        height, width = self.views[step].size
        small = self.views[step].table[:, 0].reshape(-1, height, width)
        if (before, frame) not in self._shifts:
            self._shifts[before, frame] = image_shift(small[before], small[frame])
        du, dv = (value * step / float(np.exp(log_focal)) for value in self._shifts[before, frame])
        return se3_exp(torch.tensor([0.0, 0.0, 0.0, -np.arctan(dv), np.arctan(du), 0.0], dtype=torch.float64))

    def posed(self, log_focal: float, shift: float, poses_w2c: Tensor, near: Tensor) -> DirectState:
        """Frames at given poses (F, 4, 4), on the scale at which their neighbours `near` (F, K) look most alike."""
        state = self._flat(log_focal, shift)
        reach = (poses_w2c[1:, :3, 3] - poses_w2c[:-1, :3, 3]).norm(dim=1).mean()
        tried = [replace(state, poses=poses_w2c, depth=state.depth + _scaled(factor * reach))
                 for factor in SCALES]
        return min(tried, key=lambda t: self.compare(t, near))

    def compare(self, state: DirectState, partners: Tensor) -> float:
        """Cost per patch on the middle level with partners (F, K), by which starts are compared."""
        system = self.system(self.steps[1], partners)
        state = replace(state, log_points=system.surface(state.depth))
        every = system.counts[..., None].expand(-1, -1, system.points.shape[1])
        return system.cost(state, COMPARED_NOISE, every) / max(int(every.sum()), 1)

    def partners(self, state: DirectState | None) -> Tensor:
        """(F, K) neighbours in time and, given a state, the other frames that see most of a frame's points."""
        frames, near, far = len(self.frozen.maps), self.settings.near, self.settings.far
        index = torch.arange(frames)[:, None]
        found = index + torch.tensor([o for d in range(1, near + 1) for o in (-d, d)])
        found = torch.where((found >= 0) & (found < frames), found, index)
        if state is None or not far:
            return found
        candidates, shares = self._overlap(state)
        shares[(index - candidates).abs() <= near] = 0
        best, chosen = shares.topk(min(far, candidates.shape[1]), dim=1)
        others = torch.where(best > self.settings.overlap, candidates.gather(1, chosen), index)
        return torch.cat((found, others), 1)

    def _overlap(self, state: DirectState) -> tuple[Tensor, Tensor]:
        """Candidates (F, C), evenly spread over the clip, and the share of a frame's points that each sees."""
        frames = len(self.frozen.maps)
        candidates = torch.linspace(0, frames - 1, min(frames, CANDIDATES)).round().long()
        system = self.system(self.steps[0], candidates.expand(frames, -1))
        state = replace(state, log_points=system.surface(state.depth))
        looks = (system.look(state, hosts, None) for hosts in torch.arange(frames).split(2))
        return candidates.expand(frames, -1), torch.cat([(x.patch_weight > 0).double().mean(-1) for x in looks])

    def refine(self, state: DirectState, step: int, partners: Tensor, *, steps: int, **free: bool) -> DirectState:
        """Joint steps at a level, partners (F, K), `free` as in `DirectSystem.optimise`; points begin on the maps."""
        system = self.system(step, partners)
        state = replace(state, log_points=system.surface(state.depth))
        return system.optimise(state, steps=steps, **free)[0]

    def dense_depth(self, state: DirectState, partners: Tensor) -> np.ndarray:
        """Depth (F, H, W) that agrees, held by the points that at least two of the partners (F, K) see."""
        system, frames, depth = self.system(self.steps[-1], partners), len(self.frozen.maps), state.depth.numpy()
        seen = torch.stack([(system.look(state, torch.tensor([frame]), None).patch_weight[0] > 0).sum(0) >= 2
                            for frame in range(frames)])
        frame, point = torch.nonzero(seen, as_tuple=True)
        log_points = state.log_points[frame, point].numpy()
        marks = Marks(frame.numpy(), system.points[frame, point].numpy(), log_points,
                      np.full(len(log_points), self.settings.mark_error))
        links = np.zeros((frames, frames))
        links[np.arange(frames)[:, None], partners.numpy()] = 1
        maps = self.frozen.log_maps(DepthParameters(depth[:, 0], depth[:, 1], depth[:, 2:]))
        stage = DenseStage(maps, Cameras(state.poses.numpy(), float(np.exp(state.log_focal))), marks,
                           settings=self.settings.dense, links=links,
                           invalid=None if self.invalid is None else self.invalid.numpy())
        return np.exp(stage.run())

    def judge(self, state: DirectState, partners: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points that a partner (F, K) sees, of these the ones whose brightness fits, and likeness: (F, ) each."""
        system, frames = self.system(self.steps[-1], partners), len(self.frozen.maps)
        noise = max(TYPICAL * self._contrast(self.steps[-1]), DARKEST)
        found, inliers, likeness = (np.zeros(frames) for _ in range(3))
        for frame in range(frames):
            looks = system.look(state, torch.tensor([frame]), None)
            seen = looks.patch_weight[0] > 0  # (K, N)
            fit = seen & (looks.photometric[0].square().mean(-1).sqrt() < 2 * noise)
            found[frame], inliers[frame] = int(seen.any(0).sum()), int(fit.any(0).sum())
            for k in torch.nonzero(seen.sum(1) >= ENOUGH_POINTS)[:, 0].tolist():
                own = system.brightness[frame][seen[k]].flatten()
                there = looks.seen[0, k][seen[k]].flatten()
                both = torch.stack((own, there))
                if bool((both.std(1) > 1e-3).all()):
                    likeness[frame] = max(likeness[frame], float(torch.corrcoef(both)[0, 1]))
        return found.astype(int), inliers.astype(int), likeness

    def _contrast(self, step: int) -> float:
        return float(self.views[step].table[:, 0].std())


def _scaled(factor: Tensor) -> Tensor:
    """Change of the depth parameters (27, ) that multiplies depth by a factor."""
    change = torch.zeros(DEPTH, dtype=torch.float64)
    change[0] = factor.clamp(min=1e-9).log()
    return change


def solve_direct(solver: DirectSolver, *, known: KnownCamera | None = None, report: Progress | None = None,
                 ) -> DirectSolution:
    """Joint solution of cameras, depth and points by brightness.

    Args:
        solver: of the clip.
        known: what is given of the cameras.
        report: called with the name of the step, steps done and their total.

    Raises:
        UserError: no frame looks like its neighbours wherever it is put.
    """
    known, settings, tell = known or KnownCamera(), solver.settings, report or (lambda name, done, total: None)
    mean_side = sum(solver.frozen.size) / 2
    starts = [known.focal_px] if known.focal_px else [ratio * mean_side for ratio in FOCAL_RATIOS]
    held = {'free_focal': known.focal_px is None, 'fixed_poses': known.poses_c2w is not None}
    near = solver.partners(None)
    tried: list[tuple[float, DirectState]] = []
    for index, focal in enumerate(starts):
        log_focal = float(np.log(focal))
        state = (solver.chain(log_focal, settings.start_shift) if known.poses_c2w is None else
                 solver.posed(log_focal, settings.start_shift, torch.from_numpy(known.poses_w2c()), near))
        state = solver.refine(state, solver.steps[1], near, steps=settings.start_steps, free_shift=False,
                              free_grid=False, **held)
        tried.append((solver.compare(state, near), state))
        tell('chain of frames', index + 1, len(starts))
    state = min(tried, key=itemgetter(0))[1]
    for turn, steps in enumerate(settings.steps):
        partners = solver.partners(state)
        state = solver.refine(state, solver.steps[-1], partners, steps=steps, free_shift=turn == 0, free_grid=turn > 0,
                              **held)
        tell('brightness', turn + 1, len(settings.steps))
    found, inliers, likeness = solver.judge(state, partners)
    if (likeness < settings.alike).all():
        raise UserError('no frame looks like its neighbours, wherever the camera is put: the images show different '
                        'things, or nothing with texture')
    return DirectSolution(state, solver.dense_depth(state, partners), found, inliers, likeness)


def rescue_frames(solver: DirectSolver, state: BundleState, weak: list[int]) -> tuple[BundleState, list[int]]:
    """Place frames with few tracks by brightness against their nearest neighbours in time that have enough.

    Returns:
        the state with new poses and scales, and the frames of which most patches fit there.
    """
    depth = np.zeros((len(state.poses), DEPTH))
    depth[:, 0], depth[:, 1] = state.depth.log_scale, state.depth.shift
    there = DirectState(torch.from_numpy(state.poses.copy()), state.log_focal, torch.from_numpy(depth),
                        torch.zeros(depth.shape[0], 0, dtype=torch.float64))
    strong, placed = [frame for frame in range(len(depth)) if frame not in weak], []
    for frame in sorted(weak, key=lambda f: min((abs(f - s) for s in strong), default=0)):
        hosts = sorted(strong, key=lambda s: (abs(s - frame), s))[:2]
        if not hosts:
            break
        guesses = [there.poses[hosts[0]], solver.turned(hosts[0], frame, state.log_focal) @ there.poses[hosts[0]]]
        there_again, share = solver.place(there, frame, hosts, guesses)
        if share > RESCUED_SHARE:
            there = there_again
            placed.append(frame)
            strong.append(frame)
    parameters = state.depth.copy()
    parameters.log_scale[placed] = there.depth[placed, 0].numpy()
    return replace(state, poses=there.poses.numpy(), depth=parameters), sorted(placed)
