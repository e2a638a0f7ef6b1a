"""Mode `tracks`: poses, focal length and depth from feature tracks with the frozen depth as a prior (spec 12.0)."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.reconstruction.bundle import Bundle, BundleState
from frozenmm.reconstruction.bundle_builder import BundleBuilder, TrackSettings, depth_spread
from frozenmm.reconstruction.camera_search import CameraSearch
from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.colmap_cameras import ColmapCameras
from frozenmm.reconstruction.dense_stage import Cameras, DenseStage, Marks
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
)
from frozenmm.reconstruction.frames import Progress
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.track_start import MIN_KNOWN, NothingSharedError

Rescue = Callable[[BundleState, list[int]], tuple[BundleState, list[int]]]
ENOUGH_INLIERS = 30
RIVAL = 0.9
"""Times the best score from which another solution explains the tracks about as well,"""
RIVAL_ERROR = 1.1
"""given that its median error is at most so many times as large."""
STRONG_LINK = 12
"""Points that fit and that two frames share, from which they hang together."""


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
        focal_error: standard deviation of the logarithm of the focal length.
        score: 0 to 1, how well held-out observations are explained.
        error_px: median distance of these, at a diagonal of 400 pixels.
        depth_spread: (F, ) spread of the logarithmic error of the frozen depth at the tracks; NaN where none is known.
        depth_share: share of the points whose depth the frozen depth, scaled and shifted, meets within 10 %.
        rivals_px: focal lengths of other solutions that explain the tracks about as well.
        rival_turn_deg: (F, ) the greatest turn of a frame against those.
        turn_deg: (F, ) standard deviation of the rotation in degrees, see `Bundle.turn_errors_deg`.
        joined: (F, ) bool, frames that hang together with the most of the others by points that fit.
        confidence: (F, H, W) of the depth, see `DenseStage`.
    """

    state: BundleState
    depth: np.ndarray
    tracks: Tracks
    found: np.ndarray
    inliers: np.ndarray
    reprojection: np.ndarray
    rescued: list[int]
    focal_error: float
    score: float
    error_px: float
    depth_spread: np.ndarray
    depth_share: float
    rivals_px: list[float]
    rival_turn_deg: np.ndarray
    turn_deg: np.ndarray
    joined: np.ndarray
    confidence: np.ndarray


def find_tracks(images: np.ndarray, settings: MatchSettings, report: Progress | None = None,
                invalid: np.ndarray | None = None, *, straight: bool = False) -> tuple[Tracks, float]:
    """Tracks of RGB images (F, H, W, 3) uint8, and the distortion of `match_frames`.

    Args:
        images: of the clip.
        settings: of the search.
        report: progress.
        invalid: (F, H, W) bool, pixels on which no track may lie.
        straight: the lens is known not to distort.
    """
    features: list[FrameFeatures] = []
    for index, image in enumerate(images):
        features.append(detect(image, settings, None if invalid is None else invalid[index]))
        if report is not None:
            report('features', index + 1, len(images))
    forward = None if report is None else (lambda done, total: report('matching', done, total))
    similarity = frame_similarity(features) if len(images) > ALL_PAIRS_UP_TO else None
    pairs = frame_pairs(len(images), similarity)
    matches, bend = match_frames(features, pairs, images.shape[1:3], settings, forward, straight=straight)
    return build_tracks(features, matches), bend


def solve_tracks(tracks: Tracks, depth: FrozenDepth, *, settings: TrackSettings, known: KnownCamera | None = None,
                 invalid: np.ndarray | None = None, rescue: Rescue | None = None, report: Progress | None = None,
                 colmap: ColmapCameras | Callable[[], ColmapCameras | None] | None = None) -> TrackSolution:
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
        colmap: cameras that are taken as they are, or what gives them where our own leave doubt.

    Raises:
        NothingSharedError: no two frames could be joined.
    """
    if not len(tracks):
        raise NothingSharedError
    known, tell = known or KnownCamera(), report or (lambda name, done, total: None)
    build = BundleBuilder(depth, settings, known)
    search = CameraSearch(tracks, build, settings, None if isinstance(colmap, ColmapCameras) else colmap)
    best, tried = search.run_colmap(colmap) if isinstance(colmap, ColmapCameras) else search.run(tell)
    bundle, state = search.finish(best)
    found, inliers = (np.bincount(t.frame, minlength=len(depth.maps)) for t in (tracks, search.fitting(best)))
    weak = np.flatnonzero(inliers < ENOUGH_INLIERS).tolist()
    rescued: list[int] = []
    if weak and rescue is not None and known.poses_c2w is None:
        state, rescued = _rescued(bundle, state, rescue, weak)
    cameras, unusable = Cameras(state.poses, state.focal_px, state.lens), depth.unusable(invalid)
    stage = DenseStage(depth.log_maps(state.depth), cameras, track_marks(bundle, state, settings),
                       settings=settings.dense, links=bundle.shared_counts(), invalid=unusable, followers=rescued)
    maps = stage.run()
    np.exp(maps, out=maps)
    if depth.missing is not None:
        maps[depth.missing] = stage.confidence[depth.missing] = 0
    tell('dense depth', 1, 1)
    pixels = np.linalg.norm(bundle.residuals(state)[1], axis=1)
    rivals = [attempt.state for attempt in tried if attempt.score > RIVAL * best.score
              and attempt.error_px < RIVAL_ERROR * best.error_px and not best.clearly_better(attempt)]
    turned = np.max([np.zeros(len(found)), *(turns_apart_deg(state.poses, rival.poses) for rival in rivals)], axis=0)
    errors = np.abs(bundle.residuals(state)[2][bundle.known])
    share = float((errors < np.log(1.1)).mean()) if len(errors) else 0.0
    return TrackSolution(state, maps, bundle.tracks, found, inliers, pixels, rescued, search.focal_error(best),
                         best.score, best.error_px, depth_spread(bundle, state), share,
                         [rival.focal_px for rival in rivals], turned, bundle.turn_errors_deg(state),
                         largest_part(bundle.shared_counts()), stage.confidence)


def _rescued(bundle: Bundle, state: BundleState, rescue: Rescue, weak: list[int]) -> tuple[BundleState, list[int]]:
    """The state in which `rescue` placed weak frames, but for those whose tracks held them better."""
    tried, placed = rescue(state, weak)
    frame, limit = bundle.tracks.frame, 2 * bundle.unit
    before, after = (np.bincount(frame[np.linalg.norm(bundle.residuals(s)[1], axis=1) < limit],
                                 minlength=bundle.frames) for s in (state, tried))
    kept = [f for f in placed if before[f] < MIN_KNOWN or after[f] >= before[f] / 2]
    poses, parameters = state.poses.copy(), state.depth.copy()
    poses[kept], parameters.log_scale[kept] = tried.poses[kept], tried.depth.log_scale[kept]
    return replace(state, poses=poses, depth=parameters), kept


def turns_apart_deg(poses_w2c: np.ndarray, others_w2c: np.ndarray) -> np.ndarray:
    """Angles (F, ) between rotations of world-to-camera poses (F, 4, 4), after the turn that brings most together.

    >>> turns_apart_deg(np.tile(np.eye(4), (2, 1, 1)), np.tile(np.diag([-1.0, -1, 1, 1]), (2, 1, 1))).tolist()
    [0.0, 0.0]
    """
    apart = poses_w2c[:, :3, :3].transpose(0, 2, 1) @ others_w2c[:, :3, :3]
    cosines = (np.einsum('aij,bij->ab', apart, apart) - 1) / 2
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return angles[np.median(angles, axis=1).argmin()]


def largest_part(shared: np.ndarray) -> np.ndarray:
    """(F, ) bool: the frames of the largest part that hangs together, by counts (F, F) of shared points.

    >>> largest_part(np.array([[0, 20, 0], [20, 0, 3], [0, 3, 0]])).tolist()
    [True, True, False]
    """
    graph = require('scipy.sparse.csgraph', 'the track solver')
    labels = graph.connected_components(shared >= STRONG_LINK, directed=False)[1]
    return labels == np.bincount(labels).argmax()


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
    return Marks(*(values[bundle.known] for values in (tracks.frame, tracks.pixels, np.log(z), error)))
