"""The official first-order loop: three stages of Adam on photometric, geometric and anchor terms (spec section 5)."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.reconstruction.cameras import focal_intrinsics
from frozenmm.reconstruction.lwlr import ANCHORS, BANDWIDTH_PX, LWLR, corrected_depth
from frozenmm.reconstruction.motions import MOTIONS, chain, relative_angles
from frozenmm.reconstruction.pair_sampling import PairDraw, PairSampler
from frozenmm.reconstruction.warp import (
    Frames,
    anchor_norm,
    geometric_residuals,
    photometric_residuals,
    trimmed_mean,
    warp,
)

FIRST_FOCAL_RATIO = 1.2
STORED_EVERY = 250


class Store(Protocol):
    """Where an interrupted alignment finds what it had done."""

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Arrays that were saved under a name."""

    def save(self, name: str, **arrays: np.ndarray) -> None:
        """Save arrays under a name."""


@dataclass(frozen=True)
class Stage:
    """Settings of one stage.

    Attributes:
        iterations: evaluations of the loss.
        photometric: weight of the colour term.
        geometric: weight of the depth term.
        anchors: weight of the anchor term.
        lr_translation: learning rate of the translations.
        lr_rotation: of the rotations.
        lr_focal: of the focal ratio.
        lr_depth: of scale and shift.
        lr_anchors: of the anchors.
        trim: values from this quantile on are left out; None keeps all.
        by_angle: references drawn by angle, not from the neighbours only.
    """

    iterations: int
    photometric: float
    geometric: float
    anchors: float
    lr_translation: float
    lr_rotation: float
    lr_focal: float
    lr_depth: float
    lr_anchors: float
    trim: float | None
    by_angle: bool


OFFICIAL_STAGES = (
    Stage(2000, 2.0, 0.5, 0.01, 1e-2, 1e-3, 1e-2, 1e-1, 1e-1, 0.9, False),
    Stage(2000, 2.0, 1.0, 0.1, 1e-3, 1e-4, 1e-2, 1e-2, 1e-2, 0.9, True),
    Stage(2000, 2.0, 0.1, 0.1, 1e-3, 1e-4, 1e-2, 1e-2, 1e-2, None, True),
)


@dataclass(frozen=True)
class StagedSettings:
    """Settings of the loop.

    Attributes:
        stages: what is run.
        motion: parametrisation of the motions: 'se3', 'euler' or 'quaternion'.
        bandwidth_px: of the correction.
        compat: the official sampling positions, node positions, self pairs and arccosine.
        seed: of pairs and pixels.
    """

    stages: tuple[Stage, ...] = OFFICIAL_STAGES
    motion: str = 'se3'
    bandwidth_px: float = BANDWIDTH_PX
    compat: bool = False
    seed: int = 0


@dataclass
class StagedParameters:
    """The unknowns of F frames.

    Attributes:
        translations: (F - 1, 3) float64, first half of the motion from every frame to the next.
        rotations: (F - 1, 3) float64, second half.
        focal_ratio: (1, ) float64, focal length over the mean of height and width.
        scale: (F, ) of the affine depth.
        shift: (F, ) of the affine depth.
        anchors: (F, 5, 5) multipliers.
    """

    translations: Tensor
    rotations: Tensor
    focal_ratio: Tensor
    scale: Tensor
    shift: Tensor
    anchors: Tensor

    @classmethod
    def start(cls, frames: int, *, device: torch.device | str | None = None) -> StagedParameters:
        """All cameras equal, unit scale, no shift."""
        zeros = torch.zeros(frames - 1, 3, dtype=torch.float64, device=device)
        focal = torch.full((1, ), FIRST_FOCAL_RATIO, dtype=torch.float64, device=device)
        return cls(zeros, zeros.clone(), focal, torch.ones(frames, device=device), torch.zeros(frames, device=device),
                   torch.ones(frames, ANCHORS, ANCHORS, device=device))

    def as_leaves(self) -> StagedParameters:
        """Copies that collect gradients."""
        return StagedParameters(*(getattr(self, f.name).detach().clone().requires_grad_() for f in fields(self)))


@dataclass
class StagedLosses:
    """Terms of one evaluation, unweighted, and their weighted total."""

    photometric: Tensor
    geometric: Tensor
    anchors: Tensor
    total: Tensor


@dataclass
class StagedResult:
    """What the loop ends with.

    Attributes:
        parameters: the unknowns.
        poses_w2c: (F, 4, 4) float64.
        intrinsics_px: (3, 3) at the size of the optimisation.
        depth: (F, H, W) at that size; negative values are left as they are.
        losses: (iterations, 3) float64: photometric, geometric, anchors.
    """

    parameters: StagedParameters
    poses_w2c: Tensor
    intrinsics_px: Tensor
    depth: Tensor
    losses: Tensor


class StagedOptimizer:
    """Scale, shift, anchors, motions and focal length of a clip, by Adam.

    Args:
        images: (F, 3, H, W) in 0..1.
        affine_depth: (F, H, W).
        original_size: (height, width) of the images before their resize; default: the size given.
        parameters: where to start; default: `StagedParameters.start`.
        invalid: (F, H, W) bool, pixels left out.
        settings: of the loop.

    Raises:
        UserError: fewer than 2 frames, or an unknown motion.
        ValueError: shapes that do not fit.
    """

    def __init__(self, images: Tensor, affine_depth: Tensor, *, original_size: tuple[int, int] | None = None,
                 parameters: StagedParameters | None = None, invalid: Tensor | None = None,
                 settings: StagedSettings | None = None) -> None:
        settings = settings or StagedSettings()
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[:1] + images.shape[2:] != affine_depth.shape:
            raise ValueError(f'images must be (F, 3, H, W) and affine_depth (F, H, W) of the same size, got '
                             f'{tuple(images.shape)} and {tuple(affine_depth.shape)}')
        if len(images) < 2:
            raise UserError('an alignment needs at least 2 frames, got 1')
        if settings.motion not in MOTIONS:
            raise UserError(f'motion must be one of {sorted(MOTIONS)}, got {settings.motion!r}')
        self.affine_depth = affine_depth.float()
        self.size = (int(images.shape[2]), int(images.shape[3]))
        self.original_size = original_size or self.size
        self.parameters = (parameters or StagedParameters.start(len(images), device=images.device)).as_leaves()
        self.stages, self.motion, self.compat = settings.stages, MOTIONS[settings.motion], settings.compat
        self.lwlr = LWLR(self.size, bandwidth_px=settings.bandwidth_px, compat=self.compat, device=images.device)
        self.frames = Frames.of(images.float(), invalid=invalid, compat=self.compat)
        self.sampler = PairSampler(len(images), self.size, compat=self.compat,
                                   generator=torch.Generator().manual_seed(settings.seed))

    def poses(self) -> Tensor:
        """World-to-camera poses (F, 4, 4) of the current parameters."""
        parameters = self.parameters
        return chain(self.motion(torch.cat((parameters.translations, parameters.rotations), 1)))

    def intrinsics(self) -> Tensor:
        """Current intrinsics (3, 3) at the size of the optimisation."""
        return focal_intrinsics(self.parameters.focal_ratio, self.original_size, self.size)

    def depth(self, *, keep_negative: bool = False) -> Tensor:
        """Current depth (F, H, W)."""
        parameters = self.parameters
        return corrected_depth(self.affine_depth, parameters.scale, parameters.shift, parameters.anchors, self.lwlr,
                               keep_negative=keep_negative)

    def evaluate(self, stage: Stage, draw: PairDraw, poses_w2c: Tensor | None = None) -> StagedLosses:
        """The loss of given pairs and pixels; `poses_w2c` (F, 4, 4) are the parameters', where they are known."""
        poses_w2c = self.poses() if poses_w2c is None else poses_w2c
        anchors = anchor_norm(self.parameters.anchors, draw.targets, draw.references)
        warped = warp(self.frames, self.depth(), poses_w2c, self.intrinsics(), draw)
        photometric = trimmed_mean(photometric_residuals(warped), stage.trim)
        geometric = trimmed_mean(geometric_residuals(warped), stage.trim)
        weighted = stage.photometric * photometric + stage.geometric * geometric
        return StagedLosses(photometric, geometric, anchors, weighted + stage.anchors * anchors)

    def run(self, draws: Iterable[PairDraw] | None = None,
            report: Callable[[int, int, StagedLosses], None] | None = None,
            store: Store | None = None) -> StagedResult:
        """All stages; the last evaluation takes no step.

        Args:
            draws: pairs and pixels of every iteration; default: drawn under the seed.
            report: called after every evaluation with its index, their total number and the losses.
            store: keeps everything every 250 evaluations; a run with the same store goes on there, with the same
                result to the bit.
        """
        given = iter(draws) if draws is not None else None
        optimizer = self._optimizer()
        total = sum(stage.iterations for stage in self.stages)
        losses = torch.zeros(total, 3, dtype=torch.float64)
        begin = self._restore(optimizer, losses, store)
        for index, stage in enumerate(self._schedule(optimizer)):
            if index < begin:
                continue
            poses = self.poses()
            evaluation = self.evaluate(stage, self._draw(stage, given, poses.detach()), poses)
            losses[index] = torch.stack([term.detach().double() for term in (
                evaluation.photometric, evaluation.geometric, evaluation.anchors)])
            if index + 1 < total:
                optimizer.zero_grad()
                evaluation.total.backward()
                optimizer.step()
            if report is not None:
                report(index, total, evaluation)
            if store is not None and (index + 1) % STORED_EVERY == 0:
                self._keep(optimizer, losses, store, index + 1)
        with torch.no_grad():
            depth = self.depth(keep_negative=True)
            return StagedResult(self.parameters, self.poses(), self.intrinsics(), depth, losses)

    def _keep(self, optimizer: torch.optim.Adam, losses: Tensor, store: Store, done: int) -> None:
        arrays = {'done': np.array(done), 'losses': losses.numpy(),
                  'generator': self.sampler.generator.get_state().numpy()}
        for f in fields(self.parameters):
            leaf = getattr(self.parameters, f.name)
            arrays[f.name] = leaf.detach().numpy()
            for key, value in optimizer.state[leaf].items():
                arrays[f'{f.name}.{key}'] = value.numpy()
        store.save('official_loop', **arrays)

    def _restore(self, optimizer: torch.optim.Adam, losses: Tensor, store: Store | None) -> int:
        """Evaluations that an earlier run did; its state is taken over."""
        arrays = store.load('official_loop') if store is not None else None
        if arrays is None:
            return 0
        losses.copy_(torch.from_numpy(arrays['losses']))
        self.sampler.generator.set_state(torch.from_numpy(arrays['generator']))
        for f in fields(self.parameters):
            leaf = getattr(self.parameters, f.name)
            with torch.no_grad():
                leaf.copy_(torch.from_numpy(arrays[f.name]))
            optimizer.state[leaf] = {key.removeprefix(f'{f.name}.'): torch.from_numpy(np.array(value))
                                     for key, value in arrays.items() if key.startswith(f'{f.name}.')}
        return int(arrays['done'])

    def _optimizer(self) -> torch.optim.Adam:
        p = self.parameters
        groups = ([p.translations], [p.rotations], [p.focal_ratio], [p.scale, p.shift], [p.anchors])
        return torch.optim.Adam([{'params': group} for group in groups], betas=(0.9, 0.999), eps=1e-8,
                                fused=True)

    def _schedule(self, optimizer: torch.optim.Adam) -> Iterator[Stage]:
        for stage in self.stages:
            rates = (stage.lr_translation, stage.lr_rotation, stage.lr_focal, stage.lr_depth, stage.lr_anchors)
            for group, rate in zip(optimizer.param_groups, rates):
                group['lr'] = rate
            for _ in range(stage.iterations):
                yield stage

    def _draw(self, stage: Stage, given: Iterator[PairDraw] | None, poses: Tensor) -> PairDraw:
        if given is not None:
            return next(given)
        angles = relative_angles(poses, compat=self.compat) if stage.by_angle else None
        while True:
            draw = self.sampler.draw(angles)
            if len(draw.targets):  # the official draw can leave no pair at all on very short clips
                return draw
