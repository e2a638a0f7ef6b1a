"""From a folder of images or a video to poses, depth, mesh and reports; resumable."""
from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from mmengine.logging import print_log

from frozenmm.compat.files import locked, write_whole
from frozenmm.compat.threads import steady_threads
from frozenmm.errors import UserError
from frozenmm.reconstruction.align import Alignment, AlignSettings, align
from frozenmm.reconstruction.depth_sources import NetworkDepth, PrecomputedDepth
from frozenmm.reconstruction.diagnosis import black_frames
from frozenmm.reconstruction.frames import VIDEO_SUFFIXES, Progress, list_images, read_images, read_video
from frozenmm.reconstruction.fusion import fuse, without_far
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.lens import straighten_clip
from frozenmm.reconstruction.outputs import (
    point_cloud,
    write_colmap,
    write_depth,
    write_glb,
    write_images,
    write_nerfstudio,
    write_ply,
    write_tum,
)
from frozenmm.reconstruction.report import draw_mesh, draw_report
from frozenmm.reconstruction.stored_state import StoredState

VIDEO_STEP = 10


class UnwritableFolder(UserError, OSError):
    """The folder for the results cannot be made or written to."""


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
        depth_only: write depth that is consistent over the frames, the report and the summary, nothing else.

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

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise UserError(f'every must be at least 1, got {self.every}')
        if self.voxel_size is not None and not self.voxel_size > 0:
            raise UserError(f'voxel_size must be positive, got {self.voxel_size}')
        if self.min_faces < 0:
            raise UserError(f'min_faces must be at least 0, got {self.min_faces}')


def read_frames(source: str | Path, every: int | None) -> tuple[np.ndarray, list[str]]:
    """Images (F, H, W, 3) and their names, of a folder or a video.

    Raises:
        MissingFile: no such input.
        UserError: images that cannot be read or differ in size or share a name.
    """
    source = Path(source).expanduser()
    if source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES:
        images = read_video(source, every=every or VIDEO_STEP)
        return images, [f'{index + 1:06d}.jpg' for index in range(len(images))]
    if source.is_file():
        raise UserError(f'{source} is neither a folder of images nor a video ({", ".join(VIDEO_SUFFIXES)})')
    paths = list_images(source, every=every or 1)
    twice = next((path for path, count in Counter(path.stem for path in paths).items() if count > 1), None)
    if twice is not None:
        raise UserError(f'{source} holds several images called {twice}, whose depth maps would get one name; give a '
                        'folder with the colour images only')
    return read_images(paths), [path.name for path in paths]


def reconstruct(source: str | Path, out: str | Path, depth: PrecomputedDepth | NetworkDepth, *,
                settings: PipelineSettings | None = None, mask: InvalidMask | None = None,
                report: Progress | None = None) -> Alignment:
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
        the alignment. Written are `poses.txt` (TUM), `depth/`, `colmap/`, `transforms.json`, `points.ply`,
        `mesh.ply`, `mesh.png`, `report.png` and `summary.json`; with `depth_only` just `depth/` and the last two.
        A mesh of an earlier, different alignment in the same folder is removed.

    Raises:
        MissingFile: no such input.
        UnwritableFolder: `out` is a file, or nothing can be written to it.
        UserError: another process reconstructs into `out`.
        UserError: fewer than 2 frames, images without content, and what `read_frames` and `align` refuse.
    """
    settings, out = settings or PipelineSettings(), Path(out).expanduser()
    images, names = _clip_frames(source, settings.every)
    _check_writable(out)
    # one number of threads to the end, so that it can be repeated bit for bit
    with steady_threads('the reconstruction'), locked(
            out / 'state' / 'lock', wait=False,
            busy=f'another reconstruction writes to {out.absolute()}; give another folder, or wait for it'):
        state = StoredState(out / 'state', hashlib.sha256(images.tobytes()).hexdigest())
        frozen = _frozen_depth(images, names, depth, state, report)
        invalid = None if mask is None else _invalid(images, mask, state, report)
        result = _alignment(images, names, frozen, invalid, depth.kind, state, settings, report)
        for sentence in result.warnings:
            print_log(sentence, 'current', level=logging.WARNING)
        images, frozen, invalid, result = _as_pinhole(images, frozen, invalid, result)
        visible = result if invalid is None else replace(result, depth=np.where(invalid, 0, result.depth))
        if not settings.depth_only:
            write_scene(out, images, names, visible)
        write_overview(out, images, names, frozen, result, source=str(source))
        if settings.mesh and not settings.depth_only:
            _write_mesh(out, images, visible, settings, report)
        return result


def _write_mesh(out: Path, images: np.ndarray, result: Alignment, settings: PipelineSettings,
                report: Progress | None) -> None:
    mesh = fuse(images, result, voxel_size=settings.voxel_size, min_faces=settings.min_faces, report=report)
    write_ply(out / 'mesh.ply', mesh)
    if settings.glb:
        write_glb(out / 'mesh.glb', mesh)
    draw_mesh(out / 'mesh.png', mesh, images, result)


def _clip_frames(source: str | Path, every: int | None) -> tuple[np.ndarray, list[str]]:
    """What `read_frames` gives, where that is a clip with content."""
    images, names = read_frames(source, every)
    if len(images) < 2:
        raise UserError(f'{source} gives 1 frame; a reconstruction needs at least 2 frames from different places')
    if len(black_frames(images)) == len(images):
        raise UserError(f'all {len(images)} frames of {source} are of one colour (black, white, a lens cap); there '
                        'is nothing to reconstruct')
    return images, names


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


def _frozen_depth(images: np.ndarray, names: list[str], depth: PrecomputedDepth | NetworkDepth, state: StoredState,
                  report: Progress | None) -> np.ndarray:
    if isinstance(depth, PrecomputedDepth):
        return depth.maps([Path(name).stem for name in names], images.shape[1:3])
    state = state.with_key(f'{depth.network.name} {depth.network.fingerprint}')
    stored = state.load('frozen_depth')
    if stored is not None:
        return stored['depth']
    maps = depth.maps(images, report)
    state.save('frozen_depth', depth=maps)
    return maps


def _invalid(images: np.ndarray, mask: InvalidMask, state: StoredState, report: Progress | None) -> np.ndarray:
    state = state.with_key(mask.name)
    stored = state.load('invalid')
    if stored is not None:
        return stored['invalid']
    invalid = mask(images, report)
    empty = invalid.all((1, 2))
    if empty.any():
        raise UserError(f'the mask {mask.name} leaves nothing of frames {np.flatnonzero(empty).tolist()[:5]}; '
                        'mask fewer classes or drop these frames')
    state.save('invalid', invalid=invalid)
    return invalid


def _alignment(images: np.ndarray, names: list[str], frozen: np.ndarray, invalid: np.ndarray | None, kind: str, state: StoredState,
               settings: PipelineSettings, report: Progress | None) -> Alignment:
    digest = hashlib.sha256(frozen.tobytes())
    for values in (settings.known.poses_c2w, invalid):
        digest.update(b'' if values is None else values.tobytes())
    given = f'{settings.known.focal_px} {settings.known.metric_scale}'
    state = state.with_key(f'{digest.hexdigest()} {kind} {given} {json.dumps(asdict(settings.align))}')
    stored = state.load('alignment')
    if stored is not None:
        print_log(f'the alignment of an earlier run is taken from {state.folder}', 'current')
        return Alignment.from_arrays(stored)
    result = align(images, frozen, kind=kind, settings=settings.align, known=settings.known, invalid=invalid,
                   report=report, store=state, names=names)
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
    return straight, frozen, invalid, replace(result, depth=depth)


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
    write_depth(out / 'depth', [Path(name).stem for name in names], result.depth)
    draw_report(out / 'report.png', images, frozen, result, title=f'{source}: {len(images)} frames')
    pixels = float(np.median(result.reprojection)) if len(result.reprojection) else None
    lens = {'radial': result.lens[:2].tolist(), 'principal_px': (result.lens[2:] * result.focal_px).tolist()}
    summary = {'frames': len(images), 'size': list(images.shape[1:3]), 'focal_px': result.focal_px, **lens,
               'reprojection_px': pixels, 'warnings': result.warnings}
    write_whole(out / 'summary.json', json.dumps(summary, indent=1))
