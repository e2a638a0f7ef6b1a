"""Mode `tracks`: poses, focal length and depth from feature tracks with the frozen depth as a prior (spec 12.0)."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from frozenmm.reconstruction.bundle import Bundle, BundleSettings, BundleState
from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.dense_stage import Cameras, DenseSettings, DenseStage, Marks
from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.features import (
    ALL_PAIRS_UP_TO,
    FrameFeatures,
    MatchSettings,
    Tracks,
    build_tracks,
    detect,
    frame_pairs,
    frame_similarity,
    match_frames,
    pixel_unit,
)
from frozenmm.reconstruction.frames import Progress
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.track_start import FOCAL_RATIOS, SHIFTS, NothingSharedError, best_start, posed_start

Rescue = Callable[[BundleState, list[int]], tuple[BundleState, list[int]]]
START_WINDOW = 24
PRIOR_RATIO = 1.2
ENOUGH_INLIERS = 30


@dataclass(frozen=True)
class TrackSettings:
    """Settings of the whole solver.

    Attributes:
        match: of features and matches.
        bundle: widths of the joint solver.
        dense: of the dense stage.
        start_steps: steps per start.
        first_drop_px: observations above it are dropped before the joint solver, at a diagonal of 400 pixels.
        first_steps: steps after that.
        second_drop_px: observations above it are dropped then.
        second_steps: steps after that.
        mark_px: error of a track's pixels in the dense stage, at a diagonal of 400 pixels.
        mark_depth: error there of the logarithmic prediction at one pixel.
        radial: one coefficient of radial distortion is an unknown.
    """

    match: MatchSettings = field(default_factory=MatchSettings)
    bundle: BundleSettings = field(default_factory=BundleSettings)
    dense: DenseSettings = field(default_factory=DenseSettings)
    start_steps: int = 8
    first_drop_px: float = 4.2
    first_steps: int = 15
    second_drop_px: float = 2.1
    second_steps: int = 20
    mark_px: float = 0.3
    mark_depth: float = 0.01
    radial: bool = False


@dataclass
class TrackSolution:
    """What the solver found.

    Attributes:
        state: all unknowns.
        depth: (F, H, W) z-depth in the unit of the poses.
        tracks: the observations that are left.
        found: (F, ) observations per frame at the start.
        inliers: (F, ) observations per frame that are left.
        reprojection: (O, ) distances in pixels of the observations that are left.
        rescued: frames with few tracks that were placed otherwise.
    """

    state: BundleState
    depth: np.ndarray
    tracks: Tracks
    found: np.ndarray
    inliers: np.ndarray
    reprojection: np.ndarray
    rescued: list[int]


def find_tracks(images: np.ndarray, settings: MatchSettings, report: Progress | None = None,
                invalid: np.ndarray | None = None) -> Tracks:
    """Tracks of RGB images (F, H, W, 3) uint8, none of them on `invalid` pixels (F, H, W)."""
    features: list[FrameFeatures] = []
    for index, image in enumerate(images):
        features.append(detect(image, settings, None if invalid is None else invalid[index]))
        if report is not None:
            report('features', index + 1, len(images))
    forward = None if report is None else (lambda done, total: report('matching', done, total))
    similarity = frame_similarity(features) if len(images) > ALL_PAIRS_UP_TO else None
    pairs = frame_pairs(len(images), similarity)
    return build_tracks(features, match_frames(features, pairs, pixel_unit(*images.shape[1:3]), settings, forward))


def solve_tracks(tracks: Tracks, depth: FrozenDepth, *, settings: TrackSettings, known: KnownCamera | None = None,
                 invalid: np.ndarray | None = None, rescue: Rescue | None = None,
                 report: Progress | None = None) -> TrackSolution:
    """Joint solution of cameras, depth and points.

    Args:
        tracks: of `find_tracks`.
        depth: predictions at the images' size.
        settings: of the solver.
        known: what is given of the cameras.
        invalid: (F, H, W) bool, pixels that carry nothing in the dense stage.
        rescue: called with the state and the frames that have few tracks; gives a state in which some of them are
            placed, and which.
        report: called with the name of the step, steps done and their total.

    Raises:
        NothingSharedError: no two frames could be joined.
    """
    if not len(tracks):
        raise NothingSharedError
    known, tell = known or KnownCamera(), report or (lambda name, done, total: None)
    bundle, state = _solve_cameras(tracks, BundleBuilder(depth, settings, known), settings, tell)
    found, inliers = (np.bincount(t.frame, minlength=len(depth.maps)) for t in (tracks, bundle.tracks))
    weak = np.flatnonzero(inliers < ENOUGH_INLIERS).tolist()
    rescued: list[int] = []
    if weak and rescue is not None and known.poses_c2w is None:
        state, rescued = rescue(state, weak)
    cameras = Cameras(state.poses, float(np.exp(state.log_focal)), state.radial)
    stage = DenseStage(depth.log_maps(state.depth), cameras, track_marks(bundle, state, settings),
                       settings=settings.dense, links=bundle.shared_counts(), invalid=invalid, followers=rescued)
    maps = np.exp(stage.run())
    tell('dense depth', 1, 1)
    pixels = np.linalg.norm(bundle.residuals(state)[1], axis=1)
    return TrackSolution(state, maps, bundle.tracks, found, inliers, pixels, rescued)


def _solve_cameras(tracks: Tracks, build: BundleBuilder, settings: TrackSettings, tell: Progress,
                   ) -> tuple[Bundle, BundleState]:
    """All unknowns but the dense depth, and the solver of the tracks that fit them."""
    if not len(tracks):
        raise NothingSharedError
    state, unit = _start(tracks, build, settings), pixel_unit(*build.depth.size)
    tell('cameras', 1, 3)
    bundle = build(tracks)
    for turn, (limit, steps) in enumerate(((settings.first_drop_px, settings.first_steps),
                                           (settings.second_drop_px, settings.second_steps))):
        kept_tracks, state = drop_outliers(bundle, state, limit * unit)
        bundle = build(kept_tracks)
        state, _ = bundle.optimise(state, steps=steps)
        tell('cameras', turn + 2, 3)
    return bundle, state


def track_marks(bundle: Bundle, state: BundleState, settings: TrackSettings) -> Marks:
    """Depth of the tracked points in every frame that sees them; the less parallax, the greater its error."""
    tracks, focal = bundle.tracks, np.exp(state.log_focal)
    rays = state.points[tracks.point] - np.linalg.inv(state.poses)[tracks.frame, :3, 3]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    firsts = np.flatnonzero(np.diff(tracks.point, prepend=-1))
    cosine = np.minimum.reduceat((rays * rays[firsts][tracks.point]).sum(1), firsts)
    parallax = np.maximum(np.arccos(np.clip(cosine, -1, 1)), 1e-3)[tracks.point]
    z = np.maximum(bundle.residuals(state)[0][:, 2], NEAREST)
    error = np.hypot(settings.mark_px * bundle.unit / (focal * parallax), settings.mark_depth)
    return Marks(tracks.frame, tracks.pixels, np.log(z), error)


class BundleBuilder:
    """Joint solvers of one clip, or of a window of it, with the widths and priors that its settings and cameras ask.

    Args:
        depth: predictions.
        settings: of the solver.
        known: what is given of the cameras.
    """

    def __init__(self, depth: FrozenDepth, settings: TrackSettings, known: KnownCamera) -> None:
        self.depth, self.known, self.mean_side = depth, known, sum(depth.size) / 2
        self.widths = replace(settings.bundle, fixed_focal=known.focal_px is not None,
                              fixed_poses=known.poses_c2w is not None, fixed_radial=not settings.radial)
        self.log_focal_prior = float(np.log(known.focal_px or PRIOR_RATIO * self.mean_side))
        self.ratios = FOCAL_RATIOS if known.focal_px is None else (known.focal_px / self.mean_side, )

    def __call__(self, tracks: Tracks, *, straight: bool = False, depth: FrozenDepth | None = None) -> Bundle:
        """The solver of these tracks, on the clip's predictions or a window's; `straight` without distortion."""
        widths = replace(self.widths, fixed_radial=self.widths.fixed_radial or straight)
        return Bundle(tracks, depth or self.depth, log_focal_prior=self.log_focal_prior,
                      unit=pixel_unit(*self.depth.size), settings=widths)


def _start(tracks: Tracks, build: BundleBuilder, settings: TrackSettings) -> BundleState:
    """A first state of all frames; of a long clip, focal length and shift come from a window of it."""
    side, steps = build.mean_side, settings.start_steps
    whole = build(tracks, straight=True)
    if build.known.poses_c2w is not None:
        return posed_start(whole, build.known.poses_w2c(), mean_side=side, focal_ratios=build.ratios, shifts=SHIFTS,
                           steps=steps)
    frames = len(build.depth.maps)
    ratios: tuple[float, ...] = build.ratios
    shifts: tuple[float, ...] = SHIFTS
    if frames > ALL_PAIRS_UP_TO:
        root = int(np.bincount(tracks.frame, minlength=frames).argmax())
        first = min(max(root - START_WINDOW // 2, 0), frames - START_WINDOW)
        window = np.arange(first, first + START_WINDOW)
        inside = tracks.window(window)
        if len(inside):
            bundle = build(inside, straight=True, depth=build.depth.part(window))
            state, _ = best_start(bundle, mean_side=side, focal_ratios=ratios, shifts=shifts, steps=steps)
            ratios = (float(np.exp(state.log_focal)) / side, )
            shifts = (float(np.median(state.depth.shift)), )
    return best_start(whole, mean_side=side, focal_ratios=ratios, shifts=shifts, steps=steps)[0]


def drop_outliers(bundle: Bundle, state: BundleState, limit_px: float) -> tuple[Tracks, BundleState]:
    """Tracks without observations that reproject farther than the limit or lie behind the camera."""
    points, pixels, _ = bundle.residuals(state)
    kept = (np.linalg.norm(pixels, axis=1) <= limit_px) & (points[:, 2] > 0)
    tracks, old, _ = bundle.tracks.subset(kept)
    if not len(tracks):
        raise NothingSharedError
    return tracks, replace(state, points=state.points[old])
