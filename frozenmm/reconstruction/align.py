"""Alignment of frozen depth over a clip."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import numpy as np

from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.diagnosis import parallax_deg, warnings_for
from frozenmm.reconstruction.features import pixel_unit
from frozenmm.reconstruction.track_solver import TrackSettings, find_tracks, solve_tracks

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
        scale: (F, ) of the frozen depth.
        shift: (F, ) in medians of the frame's frozen depth.
        grid: (F, 5, 5) smooth factors at the nodes.
        found: (F, ) track observations per frame.
        inliers: (F, ) of these, the ones that fit.
        reprojection: (O, ) distances in pixels of those.
        warnings: what is doubtful, in sentences.
    """

    poses_c2w: np.ndarray
    depth: np.ndarray
    focal_px: float
    scale: np.ndarray
    shift: np.ndarray
    grid: np.ndarray
    found: np.ndarray
    inliers: np.ndarray
    reprojection: np.ndarray
    warnings: list[str]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All fields as arrays by name, to be stored."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Alignment:
        """The inverse of `to_arrays`; other names are ignored."""
        values = {f.name: arrays[f.name] for f in fields(cls)}
        return cls(**{**values, 'focal_px': float(values['focal_px']), 'warnings': values['warnings'].tolist()})


def align(images: np.ndarray, depth: np.ndarray, *, kind: str = 'affine_depth', settings: AlignSettings | None = None,
          focal_px: float | None = None, report: Callable[[str, int, int], None] | None = None) -> Alignment:
    """Poses, focal length and consistent depth of a clip.

    Args:
        images: (F, H, W, 3) uint8, RGB.
        depth: (F, H, W), the frozen prediction at the images' size.
        kind: of the prediction.
        settings: mode, seed and more.
        focal_px: where it is known.
        report: called with the name of the step, units done and their total.

    Raises:
        ValueError: fewer than 2 frames, shapes that do not fit, an unknown mode, or frames that share nothing.
    """
    settings = settings or AlignSettings()
    _check(images, depth, settings, focal_px)
    frozen = FrozenDepth(depth, kind)
    options = replace(settings.tracks, match=replace(settings.tracks.match, seed=settings.seed))
    tracks = find_tracks(images, options.match, report)
    solution = solve_tracks(tracks, frozen, settings=options, focal_px=focal_px, report=report)
    poses = np.linalg.inv(solution.state.poses)
    parallax = parallax_deg(solution.tracks, solution.state.points, poses)
    doubts = warnings_for(images, solution.tracks, solution.inliers, parallax, pixel_unit(*depth.shape[1:]))
    parameters = solution.state.depth
    return Alignment(solution.state.poses[0] @ poses, solution.depth, float(np.exp(solution.state.log_focal)),
                     np.exp(parameters.log_scale), parameters.shift, np.exp(parameters.grid).reshape(-1, 5, 5),
                     solution.found, solution.inliers, solution.reprojection, doubts)


def _check(images: np.ndarray, depth: np.ndarray, settings: AlignSettings, focal_px: float | None) -> None:
    if settings.mode not in MODES:
        raise ValueError(f'mode must be one of {list(MODES)}, got {settings.mode!r}')
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f'images must be uint8 of shape (F, H, W, 3), got {images.dtype} {images.shape}')
    if len(images) < 2:
        raise ValueError('an alignment needs at least 2 frames, got 1; a single frame has no baseline')
    if depth.shape != images.shape[:3]:
        raise ValueError(f'depth must have the shape of the images {images.shape[:3]}, got {depth.shape}')
    if focal_px is not None and focal_px <= 0:
        raise ValueError(f'focal_px must be positive, got {focal_px}')
