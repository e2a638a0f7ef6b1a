"""Alignment of frozen depth over a clip: several modes behind one interface.

`tracks` is the default. It hands single frames without tracks, or a whole clip without any, to `direct`, with a
warning. `auto` is the same with cameras of COLMAP as a second opinion where ours leave doubt, `colmap` takes COLMAP's
as they are. `compat` is the official first-order loop.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from mmengine.logging import print_log
from torch.nn.functional import interpolate

from frozenmm.errors import UserError
from frozenmm.foundation.lookup import lookup
from frozenmm.reconstruction.bundle import BundleState
from frozenmm.reconstruction.bundle_builder import PRIOR_RATIO, TrackSettings
from frozenmm.reconstruction.cameras import optimisation_size
from frozenmm.reconstruction.colmap_cameras import ColmapCameras, colmap_cameras
from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.diagnosis import Diagnosis, blank_warnings, unlike_warnings
from frozenmm.reconstruction.direct_solver import DirectSettings, DirectSolver, rescue_frames, solve_direct
from frozenmm.reconstruction.features import Tracks, pixel_unit
from frozenmm.reconstruction.footage import first_alike
from frozenmm.reconstruction.frames import Progress
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.lens import NO_LENS
from frozenmm.reconstruction.staged_optimizer import OFFICIAL_STAGES, StagedOptimizer, StagedSettings, Store
from frozenmm.reconstruction.track_solver import find_tracks, solve_tracks
from frozenmm.reconstruction.track_start import NothingSharedError


@dataclass(frozen=True)
class AlignSettings:
    """Settings of an alignment.

    Attributes:
        mode: `'tracks'`, `'auto'`, `'colmap'`, `'direct'` or `'compat'`.
        seed: of everything random.
        tracks: settings of the track solver.
        direct: settings of the direct solver.
        compat_iterations: of the official loop, per stage.
    """

    mode: str = 'tracks'
    seed: int = 0
    tracks: TrackSettings = field(default_factory=TrackSettings)
    direct: DirectSettings = field(default_factory=DirectSettings)
    compat_iterations: int = 2000


@dataclass
class Alignment:
    """An aligned clip.

    Attributes:
        poses_c2w: (F, 4, 4) camera to world, the first one the identity.
        depth: (F, H, W) z-depth in the unit of the poses: the frozen depth with scale and shift, times smooth
            factors by which the frames agree.
        focal_px: at the images' width; the principal point is the centre of the image.
        scale: (F, ) of the frozen depth.
        shift: (F, ) in medians of the frame's frozen depth.
        found: (F, ) track observations per frame; without features, points that another frame sees.
        inliers: (F, ) of these, the ones that fit.
        reprojection: (O, ) distances in pixels of those; empty where no features were used.
        warnings: what is doubtful, in sentences.
        lens: (4, ) of `lens.distort`; poses and depth belong to the images as they are.
        focal_error: relative error of the focal length, about two standard deviations.
        depth_share: share of the tracked points whose depth the scaled and shifted prediction meets within 10 %.
        confidence: (F, H, W) of the depth, 0 to 1, see `DenseStage`; empty in modes that do not tell.
    """

    poses_c2w: np.ndarray
    depth: np.ndarray
    focal_px: float
    scale: np.ndarray
    shift: np.ndarray
    found: np.ndarray
    inliers: np.ndarray
    reprojection: np.ndarray
    warnings: list[str]
    lens: np.ndarray = field(default_factory=NO_LENS.copy)
    focal_error: float = 0.0
    depth_share: float = 0.0
    confidence: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float16))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All fields as arrays by name, of the shapes above, to be stored."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    def spread(self, place: np.ndarray) -> Alignment:
        """The alignment of frames (F, ) that are copies of these by index."""
        per_frame = ('poses_c2w', 'depth', 'scale', 'shift', 'found', 'inliers')
        return self if np.array_equal(place, np.arange(len(self.poses_c2w))) else replace(
            self, **{name: getattr(self, name)[place] for name in per_frame},
            confidence=self.confidence[place] if len(self.confidence) else self.confidence)

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Alignment:
        """The inverse of `to_arrays`; other names are ignored."""
        values = {f.name: arrays[f.name] for f in fields(cls)}
        numbers = {name: float(values[name]) for name in ('focal_px', 'focal_error', 'depth_share')}
        return cls(**{**values, **numbers,
                      'warnings': values['warnings'].tolist()})


@dataclass
class Clip:
    """What an alignment works on.

    Attributes:
        images: (F, H, W, 3) uint8.
        frozen: predictions at the images' size.
        known: what is given of the cameras.
        invalid: (F, H, W) bool, pixels that do not count.
        settings: of the alignment.
        report: called with the name of the step, units done and their total.
        store: of interim results.
        names: of the frames, for warnings.
    """

    images: np.ndarray
    frozen: FrozenDepth
    known: KnownCamera
    invalid: np.ndarray | None
    settings: AlignSettings
    report: Progress | None
    store: Store | None
    names: Sequence[str] | None = None

    @property
    def log_focal_prior(self) -> float:
        """Centre of the prior on the focal length."""
        return float(np.log(self.known.focal_px or PRIOR_RATIO * sum(self.frozen.size) / 2))


def align(images: np.ndarray, depth: np.ndarray, *, kind: str = 'affine_depth', settings: AlignSettings | None = None,
          known: KnownCamera | None = None, invalid: np.ndarray | None = None, report: Progress | None = None,
          store: Store | None = None, names: Sequence[str] | None = None) -> Alignment:
    """Poses, focal length and consistent depth of a clip.

    Args:
        images: (F, H, W, 3) uint8, RGB.
        depth: (F, H, W), the frozen prediction at the images' size.
        kind: of the prediction.
        settings: mode, seed and more.
        known: what is given of the cameras.
        invalid: (F, H, W) bool, pixels that do not count: sky, moving things.
        report: called with the name of the step, units done and their total.
        store: where interim results are kept, so that an interrupted alignment goes on there.
        names: of the frames, for warnings; their numbers by default.

    Raises:
        UserError: fewer than 2 frames, shapes that do not fit, an unknown mode, or frames that share nothing.
    """
    settings, known = settings or AlignSettings(), known or KnownCamera()
    _check(images, depth, settings, known, invalid)
    alike = first_alike(images) if settings.mode != 'compat' else np.arange(len(images))
    kept, place = np.unique(alike, return_inverse=True)
    if len(kept) < 2 or len(kept) == len(images):
        place = np.arange(len(images))
    else:
        print_log(f'{len(images) - len(kept)} of {len(images)} frames are copies of others and get their poses',
                  'current')
        images, depth, known = images[kept], depth[kept], known.part(kept)
        invalid = None if invalid is None else invalid[kept]
        names = None if names is None else [names[frame] for frame in kept]
    clip = Clip(images, FrozenDepth(depth, kind), known, invalid, settings, report, store, names)
    return _in_world(clip, SOLVERS[usable_mode(settings.mode)](clip)).spread(place)


def _check(images: np.ndarray, depth: np.ndarray, settings: AlignSettings, known: KnownCamera,
           invalid: np.ndarray | None) -> None:
    lookup(settings.mode, list(SOLVERS), 'mode')
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise UserError(f'images must be uint8 of shape (F, H, W, 3), got {images.dtype} {images.shape}')
    if len(images) < 2:
        raise UserError('an alignment needs at least 2 frames, got 1; a single frame has no baseline')
    if depth.shape != images.shape[:3]:
        raise UserError(f'depth must have the shape of the images {images.shape[:3]}, got {depth.shape}')
    if invalid is not None and (invalid.shape != depth.shape or invalid.dtype != bool):
        raise UserError(f'invalid must be bool of shape {depth.shape}, got {invalid.dtype} {invalid.shape}')
    known.check(len(images))


def _tracks(clip: Clip) -> tuple[Tracks, float]:
    """Tracks of the clip and their distortion, those of an earlier run where there was one."""
    options = clip.settings.tracks
    match = replace(options.match, seed=clip.settings.seed)
    stored = clip.store.load('tracks') if clip.store is not None else None
    if stored is not None:
        return Tracks(stored['frame'], stored['point'], stored['pixels']), float(stored['bend'])
    tracks, bend = find_tracks(clip.images, match, clip.report, clip.invalid, straight=options.radial is False)
    if clip.store is not None:
        clip.store.save('tracks', frame=tracks.frame, point=tracks.point, pixels=tracks.pixels, bend=np.array(bend))
    return tracks, bend


def _of_colmap(clip: Clip) -> ColmapCameras | None:
    return colmap_cameras(clip.images, known=clip.known, invalid=clip.invalid, seed=clip.settings.seed,
                          straight=clip.settings.tracks.radial is False)


def _align_colmap(clip: Clip) -> Alignment:
    cameras = _of_colmap(clip)
    if cameras is None:
        raise UserError(f'COLMAP joins no three of the {len(clip.images)} frames: too little texture, overlap or '
                        'movement; give sharper frames with more overlap, or take mode tracks')
    return _align_tracks(clip, cameras)


def _align_auto(clip: Clip) -> Alignment:
    """Mode `tracks` with a second opinion."""
    return _align_tracks(clip, partial(_of_colmap, clip))


def usable_mode(mode: str) -> str:
    """The mode that is run: `tracks` in place of `auto` where pycolmap is not installed."""
    return 'tracks' if mode == 'auto' and find_spec('pycolmap') is None else mode


def _align_tracks(clip: Clip, colmap: ColmapCameras | Callable[[], ColmapCameras | None] | None = None) -> Alignment:
    tracks, bend = (colmap.tracks, 0.0) if isinstance(colmap, ColmapCameras) else _tracks(clip)
    options = replace(clip.settings.tracks, bend=bend)

    def rescue(state: BundleState, weak: list[int]) -> tuple[BundleState, list[int]]:
        return rescue_frames(_direct_solver(clip), state, weak)

    try:
        solution = solve_tracks(tracks, clip.frozen, settings=options, known=clip.known, invalid=clip.invalid,
                                rescue=rescue, report=clip.report, colmap=colmap)
    except NothingSharedError as nothing:
        try:
            found = _align_direct(clip)
        except UserError:
            raise nothing from None
        found.warnings.insert(0, 'no two frames share enough feature tracks; the clip was aligned by brightness '
                                 '(mode direct) instead')
        return found
    state, unit = solution.state, pixel_unit(*clip.frozen.size)
    poses = np.linalg.inv(state.poses)
    doubts = Diagnosis(clip.images, solution, tracks, unit, clip.names).warnings(clip.known.focal_prior_px)
    return Alignment(poses, solution.depth, state.focal_px, np.exp(state.depth.log_scale),
                     state.depth.shift, solution.found, solution.inliers, solution.reprojection, doubts, state.lens,
                     solution.focal_error, solution.depth_share, solution.confidence)


def _direct_solver(clip: Clip) -> DirectSolver:
    return DirectSolver(clip.images, clip.frozen, clip.settings.direct, log_focal_prior=clip.log_focal_prior,
                        invalid=clip.frozen.unusable(clip.invalid))


def _align_direct(clip: Clip) -> Alignment:
    solution = solve_direct(_direct_solver(clip), known=clip.known, report=clip.report)
    depth = solution.state.depth.numpy()
    doubts = unlike_warnings(clip.images, solution.likeness, clip.settings.direct.alike, clip.names)
    return Alignment(np.linalg.inv(solution.state.poses.numpy()), solution.depth,
                     float(np.exp(solution.state.log_focal)), np.exp(depth[:, 0]), depth[:, 1], solution.found,
                     solution.inliers, np.zeros(0), doubts)


def _align_compat(clip: Clip) -> Alignment:
    """The official loop at its own size; its depth is brought to the images' size with the scale and shift found."""
    if clip.known.poses_c2w is not None:
        raise UserError('mode compat finds the poses itself; give poses_c2w to mode tracks or direct')
    if clip.frozen.kind == 'affine_disparity':
        raise UserError('mode compat takes affine depth; for disparity use mode tracks or direct')
    height, width = clip.frozen.size
    size = optimisation_size(height, width)
    images = interpolate(torch.from_numpy(clip.images).permute(0, 3, 1, 2).float() / 255, size, mode='bilinear')
    frozen = torch.from_numpy(clip.frozen.maps).float()[:, None]
    invalid = None if clip.invalid is None else interpolate(torch.from_numpy(clip.invalid)[:, None].float(),
                                                            size)[:, 0] > 0
    stages = tuple(replace(stage, iterations=clip.settings.compat_iterations,
                           lr_focal=0.0 if clip.known.focal_px else stage.lr_focal) for stage in OFFICIAL_STAGES)
    settings = StagedSettings(stages, motion='euler', compat=True, seed=clip.settings.seed)
    optimizer = StagedOptimizer(images, interpolate(frozen, size, mode='bilinear')[:, 0], invalid=invalid,
                                original_size=(height, width), settings=settings)
    if clip.known.focal_px:
        with torch.no_grad():
            optimizer.parameters.focal_ratio.fill_(clip.known.focal_px / ((height + width) / 2))
    result = optimizer.run(report=_compat_report(clip.report), store=clip.store)
    p, poses = result.parameters, np.linalg.inv(result.poses_w2c.detach().numpy())
    depth = interpolate(result.depth[:, None], (height, width), mode='bilinear')[:, 0].double().numpy()
    focal = float(p.focal_ratio.detach()) * (height + width) / 2
    frames, scale = len(poses), p.scale.detach().abs().double().numpy()
    shift = p.shift.detach().double().numpy() / (scale * clip.frozen.medians)
    none = np.zeros(frames, dtype=int)
    return Alignment(poses, np.maximum(depth, 1e-6), focal, scale, shift, none, none, np.zeros(0),
                     blank_warnings(clip.images, clip.names))


def _compat_report(report: Progress | None) -> Callable[[int, int, object], None] | None:
    return None if report is None else (lambda index, total, losses: report('official loop', index + 1, total))


def _in_world(clip: Clip, result: Alignment) -> Alignment:
    """The result in the given world and unit, or with the first camera as the world."""
    if clip.known.poses_c2w is not None:
        return result
    scale = 1.0
    if clip.known.metric_scale is not None:
        scale = clip.known.metric_scale / float(np.exp(np.log(result.scale).mean()))
    elif clip.frozen.kind == 'metric':
        scale = 1 / float(np.exp(np.log(result.scale).mean()))
    poses = np.linalg.inv(result.poses_c2w[0]) @ result.poses_c2w
    poses[:, :3, 3] *= scale
    return replace(result, poses_c2w=poses, depth=result.depth * scale, scale=result.scale * scale)


SOLVERS: dict[str, Callable[[Clip], Alignment]] = {
    'tracks': _align_tracks, 'auto': _align_auto, 'colmap': _align_colmap, 'direct': _align_direct,
    'compat': _align_compat}
