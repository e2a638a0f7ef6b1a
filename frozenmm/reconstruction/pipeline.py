"""From a folder of images or a video to poses, depth, mesh and reports; resumable."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from frozenmm.compat.files import whole_file, write_whole
from frozenmm.reconstruction.align import Alignment, AlignSettings, align
from frozenmm.reconstruction.depth_sources import NetworkDepth, PrecomputedDepth
from frozenmm.reconstruction.frames import VIDEO_SUFFIXES, list_images, read_images, read_video
from frozenmm.reconstruction.fusion import fuse, without_far
from frozenmm.reconstruction.outputs import (
    point_cloud,
    write_colmap,
    write_depth,
    write_nerfstudio,
    write_ply,
    write_tum,
)
from frozenmm.reconstruction.report import draw_mesh, draw_report

Report = Callable[[str, int, int], None]
VIDEO_STEP = 10


@dataclass(frozen=True)
class PipelineSettings:
    """Settings of the pipeline.

    Attributes:
        align: of the alignment.
        every: every n-th frame; by default 1 of a folder and 10 of a video.
        focal_px: focal length at the images' width, where it is known.
        voxel_size: in the unit of the poses; by default the longest side of the scene over 160.
        mesh: fuse a mesh.
        min_faces: connected parts of the mesh with fewer faces are dropped; 0 keeps all.
    """

    align: AlignSettings = field(default_factory=AlignSettings)
    every: int | None = None
    focal_px: float | None = None
    voxel_size: float | None = None
    mesh: bool = True
    min_faces: int = 100


def read_frames(source: str | Path, every: int | None) -> tuple[np.ndarray, list[str]]:
    """Images (F, H, W, 3) and their names, of a folder or a video.

    Raises:
        FileNotFoundError: no such input.
        ValueError: images that cannot be read or differ in size.
    """
    if every is not None and every < 1:
        raise ValueError(f'every must be at least 1, got {every}')
    source = Path(source).expanduser()
    if source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES:
        images = read_video(source, every=every or VIDEO_STEP)
        return images, [f'{index + 1:06d}.jpg' for index in range(len(images))]
    if source.is_file():
        raise ValueError(f'{source} is neither a folder of images nor a video ({", ".join(VIDEO_SUFFIXES)})')
    paths = list_images(source, every=every or 1)
    return read_images(paths), [path.name for path in paths]


def reconstruct(source: str | Path, out: str | Path, depth: PrecomputedDepth | NetworkDepth, *,
                settings: PipelineSettings | None = None, report: Report | None = None) -> Alignment:
    """Reconstruct a clip and write everything below `out`.

    The frozen depth and the alignment are kept in `out/state`; the same command after an interruption goes on there.

    Args:
        source: folder of images or a video.
        out: folder of the results.
        depth: where the frozen depth comes from.
        settings: of the pipeline.
        report: called with the name of the step, units done and their total.

    Returns:
        the alignment. Written are `poses.txt` (TUM), `depth/`, `colmap/`, `transforms.json`, `points.ply`,
        `mesh.ply`, `mesh.png`, `report.png` and `summary.json`.
    """
    settings = settings or PipelineSettings()
    out = Path(out)
    images, names = read_frames(source, settings.every)
    if len(images) < 2:
        raise ValueError(f'{source} gives 1 frame; a reconstruction needs at least 2 frames from different places')
    digest = hashlib.sha256(images.tobytes())
    frozen = _frozen_depth(images, names, depth, out / 'state' / 'frozen_depth.npz', digest.hexdigest(), report)
    digest.update(frozen.tobytes() + json.dumps(asdict(settings.align)).encode() + str(settings.focal_px).encode())
    result = _alignment(images, frozen, depth.kind, out / 'state' / 'alignment.npz', digest.hexdigest(), settings,
                        report)
    for sentence in result.warnings:
        print_log(sentence, 'current', level=30)
    write_results(out, images, names, frozen, result, source=str(source))
    if settings.mesh:
        mesh = fuse(images, result, voxel_size=settings.voxel_size, min_faces=settings.min_faces, report=report)
        write_ply(out / 'mesh.ply', mesh)
        draw_mesh(out / 'mesh.png', mesh, images, result)
    return result


def _stored(path: Path, key: str) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    with np.load(path) as content:
        return dict(content) if str(content['key']) == key else None


def _store(path: Path, key: str, **arrays: np.ndarray | float) -> None:
    with whole_file(path) as part, part.open('wb') as stream:
        np.savez(stream, key=np.array(key), **arrays)


def _frozen_depth(images: np.ndarray, names: list[str], depth: PrecomputedDepth | NetworkDepth, path: Path, key: str,
                  report: Report | None) -> np.ndarray:
    if isinstance(depth, PrecomputedDepth):
        return depth.maps([Path(name).stem for name in names], images.shape[1:3])
    key = f'{key} {depth.network.name} {depth.network.fingerprint}'
    stored = _stored(path, key)
    if stored is not None:
        return stored['depth']
    maps = depth.maps(images, report)
    _store(path, key, depth=maps)
    return maps


def _alignment(images: np.ndarray, frozen: np.ndarray, kind: str, path: Path, key: str, settings: PipelineSettings,
               report: Report | None) -> Alignment:
    stored = _stored(path, key)
    if stored is not None:
        print_log(f'the alignment of an earlier run is taken from {path}', 'current')
        return Alignment.from_arrays(stored)
    result = align(images, frozen, kind=kind, settings=settings.align, focal_px=settings.focal_px, report=report)
    _store(path, key, **result.to_arrays())
    return result


def write_results(out: Path, images: np.ndarray, names: list[str], frozen: np.ndarray, result: Alignment, *,
                  source: str) -> None:
    """Poses, depth, exports, point cloud, picture and summary of an alignment."""
    size = images.shape[1:3]
    stems = [Path(name).stem for name in names]
    cloud = point_cloud(images, without_far(result.depth), result.poses_c2w, result.focal_px)
    write_tum(out / 'poses.txt', result.poses_c2w)
    write_depth(out / 'depth', stems, result.depth)
    write_colmap(out / 'colmap', names, result.poses_c2w, result.focal_px, size, cloud)
    write_nerfstudio(out / 'transforms.json', names, result.poses_c2w, result.focal_px, size)
    write_ply(out / 'points.ply', cloud)
    draw_report(out / 'report.png', images, frozen, result, title=f'{source}: {len(images)} frames')
    summary = {'frames': len(images), 'size': list(size), 'focal_px': result.focal_px,
               'reprojection_px': float(np.median(result.reprojection)), 'warnings': result.warnings}
    write_whole(out / 'summary.json', json.dumps(summary, indent=1))
