"""Solutions of the cameras from several starts, and the choice among them by what they were not fitted to."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

import numpy as np

from frozenmm.reconstruction.bundle import NO_DEPTH, Bundle, BundleState
from frozenmm.reconstruction.bundle_builder import (
    BundleBuilder,
    TrackSettings,
    depth_spread,
    depth_widths,
    drop_outliers,
)
from frozenmm.reconstruction.colmap_cameras import ColmapCameras
from frozenmm.reconstruction.depth_model import DepthParameters
from frozenmm.reconstruction.evidence import held_out, held_out_errors
from frozenmm.reconstruction.features import ALL_PAIRS_UP_TO, Tracks, pixel_unit, unbend
from frozenmm.reconstruction.frames import Progress
from frozenmm.reconstruction.lens import NO_LENS, straighten
from frozenmm.reconstruction.track_start import (
    SHIFTS,
    NothingSharedError,
    best_start,
    posed_start,
    triangulate,
)
from frozenmm.reconstruction.two_view_start import TwoViewGrowth, focal_votes, state_from

START_WINDOW = 24
OTHER_FOCAL = 0.12
"""Logarithm from which on a focal length contradicts EXIF, and must explain the tracks clearly better."""
GOOD_SCORE = 0.6
"""Score of cameras above which, with good depth, no other start is tried, and whatever the depth, not COLMAP's."""
BRIEF_SCORE = 0.57
"""Score of cameras from which a few steps tell whether a lens is worth it."""
GOOD_SHARE = 0.85
"""The same for the share of the observations that fit."""
GOOD_DEPTH = 0.1
"""Spread of the prediction's logarithmic error up to which it is good."""
MORE_RATIOS = (1.2, )
"""Focal lengths over the mean side that are tried beside those for which fundamental matrices vote."""
EASIER = 1.1
"""Times its score by which a pinhole is preferred as that from which a lens is looked for, and a lens believed."""
PROFILE = 1.1
"""Times the focal length at which its curve of scores is taken."""
NOTICEABLE = 0.01
"""Part of the score by which a solution must be worse to be told from the best."""
FLATTEST = NOTICEABLE / 16
"""Least fall of the curve of scores that counts: where it is flat, the focal length is called 40 % uncertain."""
BETTER_LENS = 0.95
"""Times the error of held-out observations to which a lens must bring it down to be believed,"""
SURE = 3.0
"""and standard errors by which it must explain them better."""


@dataclass
class Attempt:
    """One solution of the cameras.

    Attributes:
        bundle: of the observations that fit.
        state: all unknowns.
        score: 0 to 1, how well the cameras explain what they were not fitted to.
        error_px: median error there, at a diagonal of 400 pixels.
        kept: indexes of the observations that fit, among those that it was fitted to.
        brief: it was not brought to its end.
        held: the cameras are those of COLMAP and stay as they are.
        fits: (H, ) 1 / (1 + error^2) of every held-out observation.
    """

    bundle: Bundle
    state: BundleState
    kept: np.ndarray
    score: float
    error_px: float
    brief: bool = False
    held: bool = False
    fits: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def clearly_better(self, other: Attempt) -> bool:
        """Whether it explains held-out observations better than chance would have it."""
        gain = self.fits - other.fits
        return len(gain) > 1 and float(gain.mean()) > SURE * float(gain.std()) / len(gain)**0.5

    @property
    def lens_kind(self) -> int:
        """0: a pinhole; 1, 2: with so many coefficients of distortion; 3 more with a principal point of its own."""
        return self.radial + 3 * self.principal

    @property
    def principal(self) -> bool:
        """Whether the principal point is its own."""
        return bool(self.state.lens[2:].any())

    @property
    def radial(self) -> int:
        """Coefficients of distortion."""
        return 2 if self.state.lens[1] else int(self.state.lens[0] != 0)


class CameraSearch:
    """Solutions of the cameras from several starts; the one that explains held-out observations best is taken.

    Args:
        tracks: of the clip.
        build: of joint solvers.
        settings: of the solver.
        second: gives COLMAP's cameras, which are tried where ours leave doubt.
    """

    def __init__(self, tracks: Tracks, build: BundleBuilder, settings: TrackSettings,
                 second: Callable[[], ColmapCameras | None] | None = None) -> None:
        self.second = second
        self.tracks, self.build, self.settings = tracks, build, settings
        self.unit, self.held = pixel_unit(*build.depth.size), held_out(tracks)
        self.used = tracks.subset(~self.held)[0]
        self.may_bend = build.coefficients if settings.radial is not False else 0
        self.bent = self.may_bend if settings.bend else 0
        straight = replace(self.used, pixels=unbend(self.used.pixels, settings.bend, build.depth.size))
        self.votes = focal_votes(straight, len(build.depth.maps), build.depth.size)

    def run(self, tell: Progress) -> tuple[Attempt, list[Attempt]]:
        """The best attempt, and all of them; a focal length from EXIF is given up only for a clearly better one."""
        best, tried = self._search(tell)
        prior = self.build.known.focal_prior_px
        if prior is not None and abs(best.state.log_focal - np.log(prior)) > OTHER_FOCAL:
            build = BundleBuilder(self.build.depth, self.settings, replace(self.build.known, focal_px=prior))
            held, more = CameraSearch(self.tracks, build, self.settings)._search(tell)
            tried += more
            best = best if best.clearly_better(held) else held
        return best, tried

    def _search(self, tell: Progress) -> tuple[Attempt, list[Attempt]]:
        tried: list[Attempt] = []
        known = self.build.known.poses_c2w is not None
        try:
            tried.append(self.refine(self._depth_start(), of_depth=True, radial=self.bent))
        except NothingSharedError:
            if known:
                raise
        tell('cameras', 1, 3)
        if not known and (not tried or self.doubtful(tried[0])):
            for state, radial in self._two_view_starts():
                self._try(tried, state, radial=radial)
                if tried and not self.unsure(tried[-1]):  # on every clip tried, the other starts led to the same
                    break
            if all(self.unsure(attempt) for attempt in tried):
                self._try_colmap(tried)
        if not tried:
            raise NothingSharedError
        tell('cameras', 2, 3)
        base = max(tried, key=lambda attempt: attempt.score * (1.0 if attempt.state.lens.any() else EASIER))
        whole, brief = self._whole(base.state), base.score > BRIEF_SCORE
        if not self.held.any():  # two frames: any lens would be believed
            return base, tried
        if self.settings.radial is None and base.radial:
            whole = self._whole(replace(base.state, lens=NO_LENS.copy()))
            self._try(tried, whole)
        elif self.settings.radial is None:
            self._try(tried, whole, radial=1, brief=brief)
        if self.settings.principal is None:
            self._try(tried, whole, free_principal=True, brief=brief)
        best = simplest(tried)
        if best.radial == 1 and self.settings.radial is None:
            self._try(tried, self._whole(best.state), radial=2, free_principal=best.principal)
            best = simplest(tried)
        if best.brief:
            best = self.refine(self._whole(best.state), radial=best.radial, free_principal=best.principal)
        tell('cameras', 3, 3)
        return best, tried

    def run_colmap(self, cameras: ColmapCameras) -> tuple[Attempt, list[Attempt]]:
        """COLMAP's cameras as they are, as `run` gives what it found."""
        tried: list[Attempt] = []
        state = self._colmap_start(cameras)
        if state is None:
            raise NothingSharedError
        self._try(tried, state, held=True)
        if not tried:
            raise NothingSharedError
        return tried[0], tried

    def _try_colmap(self, tried: list[Attempt]) -> None:
        """Add COLMAP's cameras: as they are where it placed all frames, else as a start of the joint solver."""
        cameras = None if self.second is None else self.second()
        state = None if cameras is None else self._colmap_start(cameras)
        if cameras is None or state is None:
            return
        if cameras.placed.all():
            self._try(tried, state, held=True)
        else:
            self._try(tried, state if self.bent else replace(state, lens=NO_LENS.copy()), radial=self.bent)

    def _colmap_start(self, cameras: ColmapCameras) -> BundleState | None:
        """COLMAP's cameras with all points, the frames that it left out placed by them; None where too few are seen."""
        begin = BundleState(np.zeros((0, 4, 4)), float(np.log(cameras.focal_px)),
                            DepthParameters(np.zeros(0), np.zeros(0)), np.zeros((0, 3)), cameras.lens)
        depth = self.build.depth
        growth = TwoViewGrowth(self.used, begin, depth.size, len(depth.maps), self._free_bundle)
        return state_from(growth, depth, SHIFTS) if growth.run_from(cameras.poses, cameras.placed) else None

    def _try(self, tried: list[Attempt], state: BundleState, *, radial: int = 0, free_principal: bool = False,
             brief: bool = False, held: bool = False) -> None:
        try:
            tried.append(self.refine(state, radial=radial, free_principal=free_principal, brief=brief, held=held))
        except NothingSharedError:  # of this start nothing is left
            return

    def unsure(self, attempt: Attempt) -> bool:
        """Whether it explains the tracks too badly for cameras that are right."""
        return bool(attempt.score < GOOD_SCORE or len(attempt.kept) < GOOD_SHARE * len(self.used))

    def doubtful(self, attempt: Attempt) -> bool:
        """Whether other starts are worth their time."""
        spread = np.nanmedian(depth_spread(attempt.bundle, attempt.state))
        votes = self.votes[:1] if self.build.known.focal_px is None else []
        off = [abs(np.log(vote * self.build.mean_side) - attempt.state.log_focal) for vote in votes]
        return bool(self.unsure(attempt) or spread > GOOD_DEPTH or self.settings.bend or max(off, default=0) > 0.2)

    def refine(self, state: BundleState, *, radial: int = 0, free_principal: bool = False,
               of_depth: bool = False, brief: bool = False, held: bool = False) -> Attempt:
        """Joint steps from a start, without what does not fit, the depth of every frame weighed by its agreement.

        Args:
            state: all unknowns.
            radial: coefficients of the distortion that are unknowns, whatever the settings say.
            free_principal: the principal point is.
            of_depth: the start follows the depth, so their agreement says nothing yet.
            brief: the start has converged but for what is freed.
            held: the cameras stay.
        """
        s, width = self.settings, None
        build = partial(self.build, radial=radial, free_principal=free_principal, held=held)
        bundle, index = build(self.used), np.arange(len(self.used))
        turns = ((s.first_drop_px, s.first_steps), (s.second_drop_px, s.second_steps))
        for limit, steps in turns if not brief else ((s.second_drop_px, s.lens_steps), ):
            left, state, kept = drop_outliers(bundle, state, limit * self.unit)
            index = index[kept]
            if width is None and not of_depth:
                width = depth_widths(build(left), state)
            bundle = build(left, depth_width=width)
            state, _ = bundle.optimise(state, steps=steps)
            width = depth_widths(bundle, state)
        errors = held_out_errors(self.tracks, self.held, state, self.build.depth.size) / self.unit
        share, fits = 1.0, 1 / (1 + errors**2)
        if not len(errors):  # two frames: nothing can be held out
            errors = np.linalg.norm(bundle.residuals(state)[1], axis=1) / self.unit
            share = len(errors) / len(self.used)
        if held:  # its uncertainty is that of cameras that are found
            bundle = self.build(bundle.tracks, depth_width=width, radial=int(state.lens.any()))
        return Attempt(bundle, state, index, share * float((1 / (1 + errors**2)).mean()), float(np.median(errors)),
                       brief, held, fits)

    def finish(self, attempt: Attempt) -> tuple[Bundle, BundleState]:
        """The attempt with the held-out observations that fit, too."""
        left = self.fitting(attempt)
        if not self.held.any():
            return attempt.bundle, attempt.state
        state = self._whole(attempt.state, left)
        width = depth_widths(attempt.bundle, attempt.state)
        bundle, solver = (self.build.alike(attempt.bundle.settings, left, depth_width=width, held=held)
                          for held in (False, attempt.held))
        return bundle, solver.optimise(state, steps=self.settings.lens_steps)[0]

    def focal_error(self, attempt: Attempt) -> float:
        """Relative error of the focal length: what changes it without explaining held-out observations worse.

        Never less than twice what the reduced normal matrix says, which knows nothing of systematic errors.
        """
        bundle, state = attempt.bundle, attempt.state
        least = 2 * bundle.focal_error(state)
        if self.build.known.focal_px is not None or self.build.known.poses_c2w is not None or not self.held.any():
            return least
        fixed = self.build.alike(replace(bundle.settings, fixed_focal=True), bundle.tracks,
                                 depth_width=depth_widths(bundle, state))
        scores = []
        for factor in (1 / PROFILE, 1.0, PROFILE):  # the middle one, too, as steps may lead on from where it ended
            other, _ = fixed.optimise(replace(state, log_focal=state.log_focal + float(np.log(factor))), steps=6)
            errors = held_out_errors(self.tracks, self.held, other, self.build.depth.size) / self.unit
            scores.append(float((1 / (1 + errors**2)).mean()))
        drop = 1 - (scores[0] + scores[2]) / 2 / scores[1]
        error = max(least, float((PROFILE - 1) * np.sqrt(NOTICEABLE / max(drop, FLATTEST))))
        prior = 2 * self.build.known.focal_error if self.build.known.focal_prior_px else np.inf
        return float(1 / np.hypot(1 / error, 1 / prior))

    def fitting(self, attempt: Attempt) -> Tracks:
        """All observations, held-out ones too, that fit where the cameras see the rest of their tracks."""
        size, limit = self.build.depth.size, self.settings.second_drop_px * self.unit
        kept = np.zeros(len(self.tracks), dtype=bool)
        kept[np.flatnonzero(~self.held)[attempt.kept]] = True
        kept[np.flatnonzero(self.held)] = held_out_errors(self.tracks, self.held, attempt.state, size) <= limit
        return self.tracks.subset(kept)[0]

    def _depth_start(self) -> BundleState:
        """A first state of all frames from the frozen depth; of a long clip, focal length and shift from a window."""
        build, side, steps = self.build, self.build.mean_side, self.settings.start_steps
        whole = build(self.used, radial=self.bent)
        ratios: tuple[float, ...] = build.ratios
        if len(ratios) > 1 and self.votes:
            ratios = (self.votes[0], )
        shifts: tuple[float, ...] = SHIFTS
        if build.known.poses_c2w is not None:
            return posed_start(whole, build.known.poses_w2c(), mean_side=side, focal_ratios=ratios, shifts=shifts,
                               steps=steps)
        frames = len(build.depth.maps)
        if frames > ALL_PAIRS_UP_TO:
            root = int(np.bincount(self.used.frame, minlength=frames).argmax())
            first = min(max(root - START_WINDOW // 2, 0), frames - START_WINDOW)
            window = np.arange(first, first + START_WINDOW)
            inside = self.used.window(window)
            if len(inside):
                bundle = build(inside, depth=build.depth.part(window), radial=self.bent)
                state, _ = best_start(bundle, mean_side=side, focal_ratios=ratios, shifts=shifts, steps=steps,
                                      lens=build.lens)
                ratios = (state.focal_px / side, )
                shifts = (float(np.median(state.depth.shift)), )
        return best_start(whole, mean_side=side, focal_ratios=ratios, shifts=shifts, steps=steps, lens=build.lens)[0]

    def _two_view_starts(self) -> Iterator[tuple[BundleState, int]]:
        """States that owe nothing to the frozen depth, and the coefficients of distortion that they begin with."""
        build, size = self.build, self.build.depth.size
        frames = len(build.depth.maps)
        stated = build.ratios if len(build.ratios) == 1 else ()
        ratios = build.ratios if build.known.focal_px else spaced([*stated, *self.votes[:1], *MORE_RATIOS])
        for radial, ratio in product(sorted({self.bent, self.may_bend}), ratios):
            focal = ratio * build.mean_side
            begin = BundleState(np.zeros((0, 4, 4)), float(np.log(focal)), DepthParameters(np.zeros(0), np.zeros(0)),
                                np.zeros((0, 3)), build.lens(focal))
            growth = TwoViewGrowth(self.used, begin, size, frames, partial(self._free_bundle, radial=radial))
            if growth.run():
                yield state_from(growth, build.depth, SHIFTS), radial

    def _free_bundle(self, tracks: Tracks, window: np.ndarray, *, radial: int = 0) -> Bundle:
        """The joint solver of the tracks of a window of frames (W, ) whose depth says nothing."""
        return self.build(tracks, depth=self.build.depth.part(window), depth_width=np.full(len(window), NO_DEPTH),
                          radial=radial)

    def _whole(self, state: BundleState, tracks: Tracks | None = None) -> BundleState:
        """A state with points for all observations to fit, those that were dropped before, too; or for some tracks."""
        tracks = self.used if tracks is None else tracks
        centre = np.array([(self.build.depth.size[1] - 1) / 2, (self.build.depth.size[0] - 1) / 2])
        plane = straighten((tracks.pixels - centre) / state.focal_px, state.lens)
        return replace(state, points=triangulate(tracks, state.poses, plane))


def simplest(tried: Sequence[Attempt]) -> Attempt:
    """The best attempt, but a lens is believed only where it lowers the error of held-out observations clearly."""
    best: Attempt | None = None
    for unknowns in sorted({attempt.lens_kind for attempt in tried}):
        top = max((attempt for attempt in tried if attempt.lens_kind == unknowns), key=lambda attempt: attempt.score)
        if best is None or (top.clearly_better(best) and (
                top.score > EASIER * best.score or top.error_px < BETTER_LENS * best.error_px)):
            best = top
    if best is None:
        raise NothingSharedError
    return best


def spaced(ratios: Sequence[float], factor: float = 1.2) -> tuple[float, ...]:
    """The ratios without those that lie within a factor of one before them.

    >>> spaced([1.0, 1.1, 2.0])
    (1.0, 2.0)
    """
    kept: list[float] = []
    for ratio in ratios:
        if all(max(ratio / other, other / ratio) > factor for other in kept):
            kept.append(ratio)
    return tuple(kept)
