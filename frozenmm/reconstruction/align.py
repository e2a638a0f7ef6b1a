"""Alignment of frozen depth over a clip, three modes behind one function."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.track_solver import TrackSettings, TrackSolution, find_tracks, solve_tracks

MODES = ('tracks', )


@dataclass(frozen=True)
class AlignSettings:
    """Settings of an alignment.

    Attributes:
        mode: `'tracks'`.
        seed: of everything random.
        tracks: settings of the track solver.
    """

    mode: str = 'tracks'
    seed: int = 0
    tracks: TrackSettings = field(default_factory=TrackSettings)


@dataclass
class Alignment:
    """An aligned clip.

    Attributes:
        poses_c2w: (F, 4, 4) camera to world, the first one the identity.
        depth: (F, H, W) z-depth in the unit of the poses.
        focal_px: at the images' width; the principal point is the centre of the image.
        details: what the solver left behind.
    """

    poses_c2w: np.ndarray
    depth: np.ndarray
    focal_px: float
    details: TrackSolution


def align(images: np.ndarray, depth: np.ndarray, *, kind: str = 'affine_depth', settings: AlignSettings | None = None,
          focal_px: float | None = None, report: Callable[[str, int, int], None] | None = None) -> Alignment:
    """Poses, focal length and consistent depth of a clip.

    Args:
        images: (F, H, W, 3) uint8, RGB.
        depth: (F, H, W), the frozen prediction at the images' size.
        kind: of the prediction.
        settings: mode, seed and more.
        focal_px: where it is known.
        report: progress.

    Raises:
        ValueError: fewer than 2 frames, shapes that do not fit, an unknown mode, or frames that share nothing.
    """
    settings = settings or AlignSettings()
    if settings.mode not in MODES:
        raise ValueError(f'mode must be one of {list(MODES)}, got {settings.mode!r}')
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f'images must be uint8 of shape (F, H, W, 3), got {images.dtype} {images.shape}')
    if len(images) < 2:
        raise ValueError('an alignment needs at least 2 frames, got 1; a single frame has no baseline')
    if depth.shape != images.shape[:3]:
        raise ValueError(f'depth must have the shape of the images {images.shape[:3]}, got {depth.shape}')
    frozen = FrozenDepth(depth, kind)
    options = replace(settings.tracks, match=replace(settings.tracks.match, seed=settings.seed))
    tracks = find_tracks(images, options.match, report)
    solution = solve_tracks(tracks, frozen, settings=options, focal_px=focal_px, report=report)
    poses = np.linalg.inv(solution.state.poses)
    poses = np.linalg.inv(poses[0]) @ poses
    return Alignment(poses, solution.depth, float(np.exp(solution.state.log_focal)), solution)
