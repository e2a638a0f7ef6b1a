"""Joint solvers of a clip as its settings ask, and what they say of the frozen depth."""
from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from frozenmm.reconstruction.bundle import NO_DEPTH, Bundle, BundleSettings, BundleState
from frozenmm.reconstruction.dense_stage import DenseSettings
from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.features import MatchSettings, Tracks, pixel_unit
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.lens import lens_of_bend
from frozenmm.reconstruction.track_start import FOCAL_RATIOS, MIN_KNOWN, NothingSharedError

PRIOR_RATIO = 1.2
DISTRUST = 8
"""Power of the depth's width by its spread; with 2, rotations were 2 to 6 times as wrong where that is 0.2."""


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
        lens_steps: steps in which a lens is tried.
        mark_px: error of a track's pixels in the dense stage, at a diagonal of 400 pixels.
        mark_depth: error there of the logarithmic prediction at one pixel.
        radial: two coefficients of radial distortion are unknowns; None: one where the tracks fit better with it, the
            second where they do so again.
        principal: the principal point is an unknown; None: where the tracks fit better with it.
        bend: distortion to begin with, of `features.unbend`.
    """

    match: MatchSettings = field(default_factory=MatchSettings)
    bundle: BundleSettings = field(default_factory=BundleSettings)
    dense: DenseSettings = field(default_factory=DenseSettings)
    start_steps: int = 8
    first_drop_px: float = 4.2
    first_steps: int = 15
    second_drop_px: float = 2.1
    second_steps: int = 20
    lens_steps: int = 6
    mark_px: float = 0.3
    mark_depth: float = 0.01
    radial: bool | None = None
    principal: bool | None = None
    bend: float = 0.0


def depth_spread(bundle: Bundle, state: BundleState) -> np.ndarray:
    """(F, ) spread of the error of the frozen depth's logarithm at the tracks, robust; NaN where none is known."""
    error, frame = np.abs(bundle.residuals(state)[2]), bundle.tracks.frame
    of_frame = (error[bundle.known & (frame == f)] for f in range(bundle.frames))
    return np.array([1.4826 * np.median(values) if len(values) >= MIN_KNOWN else np.nan for values in of_frame])


def depth_widths(bundle: Bundle, state: BundleState) -> np.ndarray:
    """(F, ) widths of the logarithmic depth by its agreement with the tracks: bad predictions count for nothing.

    A prediction errs by smooth amounts, which thousands of points repeat, so even a wide prior bends the cameras to it.
    """
    spread, least = depth_spread(bundle, state), bundle.settings.log_depth
    usual = least if np.isnan(spread).all() else float(np.nanmedian(spread))
    return np.minimum(least * np.maximum(np.nan_to_num(spread, nan=usual) / least, 1)**DISTRUST, NO_DEPTH)


class BundleBuilder:
    """Joint solvers of one clip, or of a window of it, with the widths and priors that its settings and cameras ask.

    Args:
        depth: predictions.
        settings: of the solver.
        known: what is given of the cameras.
    """

    def __init__(self, depth: FrozenDepth, settings: TrackSettings, known: KnownCamera) -> None:
        self.depth, self.known, self.mean_side = depth, known, sum(depth.size) / 2
        self.bend, self.coefficients = settings.bend, 1 if settings.radial is None else 2
        self.widths = replace(settings.bundle, fixed_focal=known.focal_px is not None,
                              fixed_poses=known.poses_c2w is not None, fixed_principal=not settings.principal,
                              fixed_radial=not settings.radial)
        focal = known.focal_px or known.focal_prior_px
        if focal is not None and known.focal_px is None:
            self.widths = replace(self.widths, log_focal=known.focal_error)
        self.log_focal_prior = float(np.log(focal or PRIOR_RATIO * self.mean_side))
        self.ratios = FOCAL_RATIOS if focal is None else (focal / self.mean_side, )

    def lens(self, focal_px: float) -> np.ndarray:
        """The lens (4, ) to begin with under a focal length."""
        return lens_of_bend(self.bend, focal_px, float(np.hypot(*self.depth.size)) / 2, self.coefficients)

    def __call__(self, tracks: Tracks, *, depth: FrozenDepth | None = None, depth_width: np.ndarray | None = None,
                 radial: int = 0, free_principal: bool = False, held: bool = False) -> Bundle:
        """The solver of these tracks, on the clip's predictions or a window's.

        Args:
            tracks: of the clip or the window.
            depth: of the window; None: of the clip.
            depth_width: (F, ) of `Bundle`.
            radial: coefficients of the distortion that are unknowns, whatever the settings say.
            free_principal: the principal point is, whatever the settings say.
            held: the cameras stay as they are.
        """
        widths = replace(self.widths, fixed_radial=self.widths.fixed_radial and not radial, fixed_second=radial == 1,
                         fixed_principal=self.widths.fixed_principal and not free_principal)
        return self.alike(widths, tracks, depth=depth, depth_width=depth_width, held=held)

    def alike(self, widths: BundleSettings, tracks: Tracks, *, depth: FrozenDepth | None = None,
              depth_width: np.ndarray | None = None, held: bool = False) -> Bundle:
        """The same with these widths."""
        if held:
            widths = replace(widths, fixed_focal=True, fixed_poses=True, fixed_radial=True, fixed_principal=True)
        return Bundle(tracks, depth or self.depth, log_focal_prior=self.log_focal_prior,
                      unit=pixel_unit(*self.depth.size), settings=widths, depth_width=depth_width)


def drop_outliers(bundle: Bundle, state: BundleState, limit_px: float) -> tuple[Tracks, BundleState, np.ndarray]:
    """Tracks without observations that reproject farther than the limit or lie behind the camera.

    Returns:
        the tracks, the state of their points, and which observations (O, ) are left.
    """
    points, pixels, _ = bundle.residuals(state)
    kept = (np.linalg.norm(pixels, axis=1) <= limit_px) & (points[:, 2] > 0)
    tracks, old, kept = bundle.tracks.subset(kept)
    if not len(tracks):
        raise NothingSharedError
    return tracks, replace(state, points=state.points[old]), kept
