"""From a folder of images or a video to poses, depth, mesh and reports; resumable."""
from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from mmengine.logging import print_log

from frozenmm.compat.files import locked, write_whole
from frozenmm.compat.threads import steady_threads
from frozenmm.errors import UserError
from frozenmm.reconstruction.align import Alignment, AlignSettings, align, usable_mode
from frozenmm.reconstruction.depth_sources import NetworkDepth, PrecomputedDepth
from frozenmm.reconstruction.diagnosis import black_frames, named
from frozenmm.reconstruction.footage import LONGEST_SIDE, Footage, read_footage
from frozenmm.reconstruction.frames import Progress
from frozenmm.reconstruction.fusion import fuse, without_far
from frozenmm.reconstruction.given_lens import GivenLens
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.lens import straighten_clip
from frozenmm.reconstruction.outputs import (
    point_cloud,
    write_colmap,
    write_confidence,
    write_depth,
    write_glb,
    write_images,
    write_nerfstudio,
    write_ply,
    write_tum,
)
from frozenmm.reconstruction.report import draw_mesh, draw_report
from frozenmm.reconstruction.stored_state import StoredState


class UnwritableFolder(UserError, OSError):
    """The folder for the results cannot be made or written to."""


@dataclass
class Reconstruction(Alignment):
    """The alignment of a folder or video.

    Attributes:
        unreadable: a sentence for every file that was left out.
    """

    unreadable: list[str] = field(default_factory=list)


class InvalidMask(Protocol):
    """Says which pixels of a clip do not count.

    Attributes:
        name: model and classes, by which stored masks are known.
    """

    name: str

    def __call__(self, images: np.ndarray, report: Progress | None) -> np.ndarray:
        """Bool (F, H, W) of RGB images (F, H, W, 3) uint8."""


@dataclass(frozen=True)
class PipelineSettings:
    """Settings of the pipeline.

    Attributes:
        align: of the alignment.
        every: every n-th frame; by default 1 of a folder and 10 of a video.
        known: what is given of the cameras.
        voxel_size: in the unit of the poses; by default from the size of the scene and the noise of the depth (`fuse`).
        mesh: fuse a mesh.
        glb: write it as binary glTF too.
        min_faces: connected parts of the mesh with fewer faces are dropped; 0 keeps all.
        depth_only: write consistent depth and its confidence, the report and the summary, nothing else.
        longest_side: larger images are made smaller, to this many pixels.
        lens: calibration of the images.

    Raises:
        UserError: a number that cannot be.
    """

    align: AlignSettings = field(default_factory=AlignSettings)
    every: int | None = None
    known: KnownCamera = field(default_factory=KnownCamera)
    voxel_size: float | None = None
    mesh: bool = True
    glb: bool = False
    min_faces: int = 100
    depth_only: bool = False
    longest_side: int = LONGEST_SIDE
    lens: GivenLens | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise UserError(f'every must be at least 1, got {self.every}')
        if self.voxel_size is not None and not self.voxel_size > 0:
            raise UserError(f'voxel_size must be positive, got {self.voxel_size}')
        if self.longest_side < 32:
            raise UserError(f'longest_side must be at least 32 pixels, got {self.longest_side}')
        if self.lens is not None and self.known.focal_px is not None:
            raise UserError('camera gives the focal length already; leave out focal_px')
        if self.min_faces < 0:
            raise UserError(f'min_faces must be at least 0, got {self.min_faces}')


def reconstruct(source: str | Path, out: str | Path, depth: PrecomputedDepth | NetworkDepth, *,
                settings: PipelineSettings | None = None, mask: InvalidMask | None = None,
                report: Progress | None = None) -> Reconstruction:
    """Reconstruct a clip and write everything below `out`.

    Frozen depth, masks, tracks and the alignment are kept in `out/state` as soon as each is there; the same command
    after an interruption goes on there.

    Args:
        source: folder of images or a video.
        out: folder of the results.
        depth: where the frozen depth comes from.
        settings: of the pipeline.
        mask: says which pixels do not count (sky, moving things); they get no depth in mesh and point cloud.
        report: called with the name of the step, units done and their total.

    Returns:
        the alignment, in pixels of the images written. Written are `poses.txt` (TUM), `depth/`, `confidence/`,
        `colmap/`, `transforms.json`, `points.ply`, `mesh.ply`, `mesh.png`, `report.png` and `summary.json`;
        with `depth_only` just the maps and the last two.
        A mesh of an earlier, different alignment in the same folder is removed.

    Raises:
        MissingFile: no such input.
        UnwritableFolder: `out` is a file, or nothing can be written to it.
        UserError: another process reconstructs into `out`.
        UserError: fewer than 2 frames, images without content, and what `read_footage` and `align` refuse.
    """
    settings, out = settings or PipelineSettings(), Path(out).expanduser()
    footage = _footage(source, settings)
    known = _known(settings.known, footage)
    images, names = footage.images, safe_names(footage.names)
    _check_writable(out)
    # one number of threads to the end, so that it can be repeated bit for bit
    with steady_threads('the reconstruction'), locked(
            out / 'state' / 'lock', wait=False,
            busy=f'another reconstruction writes to {out.absolute()}; give another folder, or wait for it'):
        frozen, invalid, result = _solved(footage, depth, mask, out / 'state', replace(settings, known=known), report)
        if names != footage.names:
            write_whole(out / 'names.txt', ''.join(f'{own}\t{given}\n' for own, given in zip(names, footage.names)))
        images, frozen, invalid, result = _as_pinhole(images, frozen, invalid, result)
        visible = result if invalid is None else replace(result, depth=np.where(invalid, 0, result.depth))
        if not settings.depth_only:
            write_scene(out, images, names, visible)
        write_overview(out, images, names, np.nan_to_num(frozen), visible, source=str(source))
        if settings.mesh and not settings.depth_only:
            _write_mesh(out, images, visible, settings, report)
        return Reconstruction(**{f.name: getattr(result, f.name) for f in fields(result)},
                              unreadable=footage.unreadable)


def _solved(footage: Footage, depth: PrecomputedDepth | NetworkDepth, mask: InvalidMask | None, folder: Path,
            settings: PipelineSettings, report: Progress | None) -> tuple[np.ndarray, np.ndarray | None, Alignment]:
    """Frozen depth (F, H, W), pixels that do not count, and the alignment; warnings are logged."""
    state = StoredState(folder, hashlib.sha256(np.ascontiguousarray(footage.images).data).hexdigest())
    frozen = _frozen_depth(footage, depth, state, report)
    invalid = _invalid(footage, mask, state, report)
    result = _alignment(footage, frozen, invalid, depth.kind, state, settings, report)
    for sentence in result.warnings:
        print_log(sentence, 'current', level=logging.WARNING)
    return frozen, invalid, result


def _write_mesh(out: Path, images: np.ndarray, result: Alignment, settings: PipelineSettings,
                report: Progress | None) -> None:
    mesh = fuse(images, result, voxel_size=settings.voxel_size, min_faces=settings.min_faces, report=report)
    write_ply(out / 'mesh.ply', mesh)
    if settings.glb:
        write_glb(out / 'mesh.glb', mesh)
    draw_mesh(out / 'mesh.png', mesh, images, result)


def safe_names(names: Sequence[str]) -> list[str]:
    """Names without blanks, at which COLMAP cuts them, and no two alike.

    >>> safe_names(['a b.png', 'a_b.png'])
    ['a_b.png', '_a_b.png']
    """
    found: list[str] = []
    for name in names:
        safe = '_'.join(name.split())
        while Path(safe).stem in {Path(other).stem for other in found}:
            safe = f'_{safe}'
        found.append(safe)
    return found


def _footage(source: str | Path, settings: PipelineSettings) -> Footage:
    """What `read_footage` gives, where that is a clip with content."""
    footage = read_footage(source, settings.every, longest_side=settings.longest_side, lens=settings.lens)
    if len(footage.images) < 2:
        raise UserError(f'{source} gives 1 frame; a reconstruction needs at least 2 frames from different places')
    if len(black_frames(footage.images)) == len(footage.images):
        raise UserError(f'all {len(footage.images)} frames of {source} are of one colour (black, white, a lens cap); '
                        'there is nothing to reconstruct')
    return footage


def _known(known: KnownCamera, footage: Footage) -> KnownCamera:
    """What is given of the cameras, at the size of the canvas and for the frames that can be read."""
    if known.poses_c2w is not None and len(known.poses_c2w) == len(footage.listed):
        known = known.part(np.flatnonzero(np.isin(footage.listed, footage.names)))
    focal = footage.focal_px if known.focal_px is None else known.focal_px * footage.scale
    return replace(known, focal_px=focal, focal_prior_px=None if focal else footage.focal_prior_px)


def _check_writable(out: Path) -> None:
    """Refuse a folder that cannot be written to before hours are spent."""
    if out.exists() and not out.is_dir():
        raise UnwritableFolder(f'{out.absolute()} is a file; give a folder for the results')
    try:
        (out / 'state').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnwritableFolder(f'the folder {out.absolute()} cannot be made ({error.strerror}); give another '
                               'place') from error
    if not os.access(out, os.W_OK) or not os.access(out / 'state', os.W_OK):
        raise UnwritableFolder(f'nothing can be written to {out.absolute()}; give another folder for the results')


def _frozen_depth(footage: Footage, depth: PrecomputedDepth | NetworkDepth, state: StoredState,
                  report: Progress | None) -> np.ndarray:
    """Depth (F, H, W) float32 on the canvas, NaN where there is none."""
    if isinstance(depth, PrecomputedDepth):
        return np.stack([footage.laid(values, frame) for frame, values in enumerate(_given_maps(footage, depth))])
    state = state.with_key(f'{depth.network.name} {depth.network.fingerprint}')
    stored = state.load('frozen_depth')
    if stored is not None:
        return stored['depth']
    maps = np.full(footage.images.shape[:3], np.nan, np.float32)
    groups: dict[str, list[int]] = {}
    for frame, place in enumerate(footage.places):
        groups.setdefault(str(place.inside), []).append(frame)
    for group in groups.values():  # images of one size at a time, without the canvas round them
        rows, columns = footage.places[group[0]].inside
        maps[group, rows, columns] = depth.maps(footage.images[group, rows, columns], report)
    outside = footage.outside
    if outside is not None:
        maps[outside] = np.nan
    state.save('frozen_depth', depth=maps)
    return maps


def _given_maps(footage: Footage, depth: PrecomputedDepth) -> list[np.ndarray]:
    """Maps of the frames that can be read, found by their names, or by the order of all frames."""
    stems, listed = ([Path(name).stem for name in names] for names in (footage.names, footage.listed))
    try:
        return depth.maps(stems)
    except UserError:
        if stems == listed:
            raise
        return [values for values, stem in zip(depth.maps(listed), listed) if stem in stems]


def _invalid(footage: Footage, mask: InvalidMask | None, state: StoredState, report: Progress | None,
             ) -> np.ndarray | None:
    """Bool (F, H, W): pixels outside of the images, and those that a mask leaves out."""
    outside = footage.outside
    if mask is None:
        return outside
    state = state.with_key(mask.name)
    stored = state.load('invalid')
    invalid = mask(footage.images, report) if stored is None else stored['invalid']
    empty = invalid.all((1, 2))
    if empty.any():
        gone = named(np.flatnonzero(empty).tolist(), footage.names)
        raise UserError(f'the mask {mask.name} leaves nothing of {gone}; mask fewer classes or drop these frames')
    if stored is None:
        state.save('invalid', invalid=invalid)
    return invalid if outside is None else invalid | outside


def _alignment(footage: Footage, frozen: np.ndarray, invalid: np.ndarray | None, kind: str, state: StoredState,
               settings: PipelineSettings, report: Progress | None) -> Alignment:
    digest = hashlib.sha256(np.ascontiguousarray(frozen).data)
    for values in (settings.known.poses_c2w, invalid):
        digest.update(b'' if values is None else np.ascontiguousarray(values).data)
    given = f'{settings.known.focal_px} {settings.known.focal_prior_px} {settings.known.metric_scale} '
    given += usable_mode(settings.align.mode)
    state = state.with_key(f'{digest.hexdigest()} {kind} {given} {json.dumps(asdict(settings.align))}')
    stored = state.load('alignment')
    if stored is not None:
        print_log(f'the alignment of an earlier run is taken from {state.folder}', 'current')
        return Alignment.from_arrays(stored)
    result = align(footage.images, frozen, kind=kind, settings=settings.align, known=settings.known, invalid=invalid,
                   report=report, store=state, names=footage.names)
    for outdated in ('mesh.ply', 'mesh.glb', 'mesh.png'):  # of another alignment; whoever reads them could not tell
        (state.folder.parent / outdated).unlink(missing_ok=True)
    state.save('alignment', **result.to_arrays())
    return result


def _as_pinhole(images: np.ndarray, frozen: np.ndarray, invalid: np.ndarray | None, result: Alignment,
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Alignment]:
    """Everything as a camera without distortion would see it, because no written format but COLMAP's knows any."""
    if not result.lens.any():
        return images, frozen, invalid, result
    straight, depth = straighten_clip(images, result.depth, result.focal_px, result.lens)
    frozen = straighten_clip(images, frozen, result.focal_px, result.lens)[1]
    if invalid is not None:
        invalid = straighten_clip(images, invalid.astype(np.float32), result.focal_px, result.lens)[1] > 0
    confidence = result.confidence
    if len(confidence):
        confidence = straighten_clip(images, confidence.astype(np.float32), result.focal_px, result.lens)[1]
    return straight, frozen, invalid, replace(result, depth=depth, confidence=confidence)


def write_scene(out: Path, images: np.ndarray, names: list[str], result: Alignment) -> None:
    """Poses, images, exports and point cloud of an alignment.

    Args:
        out: folder.
        images: (F, H, W, 3) uint8.
        names: of the frames, with suffix.
        result: of the alignment; depth 0 gives no points.
    """
    size = images.shape[1:3]
    cloud = point_cloud(images, without_far(result.depth), result.poses_c2w, result.focal_px)
    write_tum(out / 'poses.txt', result.poses_c2w)
    write_colmap(out / 'colmap', names, result.poses_c2w, result.focal_px, size, cloud)
    files = write_images(out / 'images', names, images)
    write_nerfstudio(out / 'transforms.json', files, result.poses_c2w, result.focal_px, size)
    write_ply(out / 'points.ply', cloud)


def write_overview(out: Path, images: np.ndarray, names: list[str], frozen: np.ndarray, result: Alignment, *,
                   source: str) -> None:
    """Depth, picture and summary of an alignment.

    Args:
        out: folder.
        images: (F, H, W, 3) uint8.
        names: of the frames, with suffix.
        frozen: (F, H, W), what the frozen network predicted.
        result: of the alignment.
        source: where the frames are from, for the picture's title.
    """
    stems = [Path(name).stem for name in names]
    write_depth(out / 'depth', stems, result.depth)
    write_confidence(out / 'confidence', stems, result.confidence)
    draw_report(out / 'report.png', images, frozen, result, title=f'{source}: {len(images)} frames')
    pixels = float(np.median(result.reprojection)) if len(result.reprojection) else None
    lens = {'radial': result.lens[:2].tolist(), 'principal_px': (result.lens[2:] * result.focal_px).tolist()}
    summary = {'frames': len(images), 'size': list(images.shape[1:3]), 'focal_px': result.focal_px, **lens,
               'focal_error': result.focal_error, 'depth_within_10_percent': result.depth_share,
               'reprojection_px': pixels, 'warnings': result.warnings}
    write_whole(out / 'summary.json', json.dumps(summary, indent=1))
