"""Mode `tracks`: poses, focal length and depth from feature tracks with the frozen depth as a prior (spec 12.0)."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from frozenmm.reconstruction.bundle import Bundle, BundleSettings, BundleState
from frozenmm.reconstruction.dense_stage import DenseSettings, DenseStage
from frozenmm.reconstruction.depth_model import GRID, FrozenDepth
from frozenmm.reconstruction.features import (
    FrameFeatures,
    MatchSettings,
    Tracks,
    build_tracks,
    detect,
    frame_pairs,
    match_frames,
    pixel_unit,
)
from frozenmm.reconstruction.track_start import FOCAL_RATIOS, NOTHING_SHARED, SHIFTS, best_start

Report = Callable[[str, int, int], None]
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
    """

    match: MatchSettings = field(default_factory=MatchSettings)
    bundle: BundleSettings = field(default_factory=BundleSettings)
    dense: DenseSettings = field(default_factory=DenseSettings)
    start_steps: int = 8
    first_drop_px: float = 4.2
    first_steps: int = 15
    second_drop_px: float = 2.1
    second_steps: int = 20


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
    """

    state: BundleState
    depth: np.ndarray
    tracks: Tracks
    found: np.ndarray
    inliers: np.ndarray
    reprojection: np.ndarray


def find_tracks(images: np.ndarray, settings: MatchSettings, report: Report | None = None) -> Tracks:
    """Tracks of RGB images (F, H, W, 3) uint8."""
    features: list[FrameFeatures] = []
    for index, image in enumerate(images):
        features.append(detect(image, settings))
        if report is not None:
            report('features', index + 1, len(images))
    forward = None if report is None else (lambda done, total: report('matching', done, total))
    matches = match_frames(features, frame_pairs(len(images)), pixel_unit(*images.shape[1:3]), settings, forward)
    return build_tracks(features, matches)


def solve_tracks(tracks: Tracks, depth: FrozenDepth, *, settings: TrackSettings, focal_px: float | None = None,
                 report: Report | None = None) -> TrackSolution:
    """Joint solution of cameras, depth and points.

    Args:
        tracks: of `find_tracks`.
        depth: predictions at the images' size.
        settings: of the solver.
        focal_px: the focal length, where it is known.
        report: called with the name of the step, steps done and their total.

    Raises:
        ValueError: no two frames could be joined.
    """
    if not len(tracks):
        raise ValueError(NOTHING_SHARED)
    height, width = depth.size
    unit, mean_side = pixel_unit(height, width), (height + width) / 2
    widths = replace(settings.bundle, fixed_focal=focal_px is not None)
    prior = float(np.log(focal_px or PRIOR_RATIO * mean_side))
    ratios = FOCAL_RATIOS if focal_px is None else (focal_px / mean_side, )

    def bundle_of(tracks: Tracks, with_grid: bool) -> Bundle:
        return Bundle(tracks, depth, log_focal_prior=prior, unit=unit, settings=replace(widths, with_grid=with_grid))

    tell = report or (lambda name, done, total: None)
    state, _ = best_start(bundle_of(tracks, False), mean_side=mean_side, focal_ratios=ratios, shifts=SHIFTS,
                          steps=settings.start_steps)
    tell('cameras', 1, 3)
    bundle = bundle_of(tracks, True)
    for turn, (limit, steps) in enumerate(((settings.first_drop_px, settings.first_steps),
                                           (settings.second_drop_px, settings.second_steps))):
        kept_tracks, state = drop_outliers(bundle, state, limit * unit)
        bundle = bundle_of(kept_tracks, True)
        state, _ = bundle.optimise(state, steps=steps)
        tell('cameras', turn + 2, 3)
    state = replace(state, depth=DenseStage(bundle, state, settings.dense).run())
    tell('dense depth', 1, 1)
    pixels = np.linalg.norm(bundle.residuals(state)[1], axis=1)
    found, inliers = (np.bincount(t.frame, minlength=len(depth.maps)) for t in (tracks, bundle.tracks))
    return TrackSolution(state, np.exp(depth.log_maps(state.depth)), bundle.tracks, found, inliers, pixels)


def drop_outliers(bundle: Bundle, state: BundleState, limit_px: float) -> tuple[Tracks, BundleState]:
    """Tracks without observations that reproject farther than the limit or lie behind the camera."""
    points, pixels, _ = bundle.residuals(state)
    kept = (np.linalg.norm(pixels, axis=1) <= limit_px) & (points[:, 2] > 0)
    tracks, old, _ = bundle.tracks.subset(kept)
    if not len(tracks):
        raise ValueError(NOTHING_SHARED)
    return tracks, replace(state, points=state.points[old])


def grid_of(state: BundleState) -> np.ndarray:
    """Factors (F, 5, 5) at the nodes of the grid."""
    return np.exp(state.depth.grid).reshape(-1, GRID, GRID)
