"""Cameras of COLMAP (package `pycolmap`): its features, its matching and its incremental mapper.

They serve beside our own solver: as the cameras of mode `colmap`, and as a second opinion in mode `auto`.
"""
from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frozenmm.compat.dependencies import require
from frozenmm.errors import UserError
from frozenmm.reconstruction.features import (
    ALL_PAIRS_UP_TO,
    FrameFeatures,
    Matches,
    Tracks,
    build_tracks,
    frame_pairs,
    frame_similarity,
)
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.lens import LENS

FEWEST = 3
"""Frames of the smallest model of COLMAP that counts (its own default, 10, leaves short clips without one)."""


@dataclass
class ColmapCameras:
    """What COLMAP found.

    Attributes:
        poses: (F, 4, 4) world to camera, the identity where there is none.
        placed: (F, ) bool, frames of its largest model.
        focal_px: focal length; the principal point is the centre.
        lens: (4, ) of `lens.distort`.
        tracks: its verified matches.
    """

    poses: np.ndarray
    placed: np.ndarray
    focal_px: float
    lens: np.ndarray
    tracks: Tracks


def colmap_cameras(images: np.ndarray, *, known: KnownCamera, invalid: np.ndarray | None = None, straight: bool = False,
                   seed: int = 0) -> ColmapCameras | None:
    """Cameras of RGB images (F, H, W, 3) uint8; None where COLMAP joins no three frames.

    Args:
        images: of the clip, by one camera.
        known: what is given of it.
        invalid: (F, H, W) bool, pixels on which no feature may lie.
        straight: the lens is known not to distort.
        seed: of everything random.

    Raises:
        MissingPackage: pycolmap is not installed.
        UserError: the poses are given.
    """
    colmap: Any = require('pycolmap', 'mode colmap')
    if known.poses_c2w is not None:
        raise UserError('mode colmap finds the poses itself; give poses_c2w to mode tracks or direct')
    with tempfile.TemporaryDirectory() as temporary, _quiet(colmap):
        folder, threads = Path(temporary), torch.get_num_threads()
        colmap.set_random_seed(seed)
        names = _write(folder, images, invalid)
        colmap.extract_features(
            folder / 'database.db', folder / 'images', names, camera_mode=colmap.CameraMode.SINGLE,
            reader_options=_reader(colmap, folder, images.shape[1:3], known, invalid is not None, straight),
            extraction_options=colmap.FeatureExtractionOptions(num_threads=threads, use_gpu=False))
        with colmap.Database.open(folder / 'database.db') as database:
            features = [_features(database, database.read_image_with_name(name).image_id) for name in names]
        _match(colmap, folder, features, colmap.FeatureMatchingOptions(num_threads=threads, use_gpu=False))
        options = colmap.IncrementalPipelineOptions(
            num_threads=threads, random_seed=seed, extract_colors=False, min_model_size=FEWEST,
            ba_refine_focal_length=known.focal_px is None, ba_refine_extra_params=not straight)
        options.mapper.num_threads = threads
        models = colmap.incremental_mapping(folder / 'database.db', folder / 'images', folder, options)
        best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
        if best is None or best.num_reg_images() < FEWEST:
            return None
        return _cameras(best, names, _tracks(folder, colmap, features))


@contextmanager
def _quiet(colmap: Any) -> Iterator[None]:
    """Without COLMAP's log: what it could not place is said by whoever asked for it."""
    before = colmap.logging.minloglevel
    colmap.logging.minloglevel = colmap.logging.FATAL.value
    try:
        yield
    finally:
        colmap.logging.minloglevel = before


def _write(folder: Path, images: np.ndarray, invalid: np.ndarray | None) -> list[str]:
    """Images, and masks of what counts, as files; the names of the images."""
    cv2 = require('cv2', 'mode colmap')
    names = [f'{index:06d}.png' for index in range(len(images))]
    for part in ('images', 'masks'):
        (folder / part).mkdir()
    for index, (name, image) in enumerate(zip(names, images)):
        cv2.imwrite(str(folder / 'images' / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if invalid is not None:
            cv2.imwrite(str(folder / 'masks' / f'{name}.png'), np.where(invalid[index], 0, 255).astype(np.uint8))
    return names


def _reader(colmap: Any, folder: Path, size: tuple[int, int], known: KnownCamera, masked: bool, straight: bool) -> Any:
    """How images are read: a centred camera with one coefficient of distortion, none where there is none."""
    options = colmap.ImageReaderOptions(camera_model='SIMPLE_PINHOLE' if straight else 'SIMPLE_RADIAL')
    if masked:
        options.mask_path = folder / 'masks'
    focal = known.focal_px or known.focal_prior_px
    if focal is not None:
        options.camera_params = ','.join(str(v) for v in (focal, size[1] / 2, size[0] / 2, *([] if straight else [0])))
    return options


def _features(database: Any, image: int) -> FrameFeatures:
    """Places and descriptors of an image as ours are; the centre of COLMAP's first pixel is (0.5, 0.5)."""
    read = database.read_descriptors(image)
    descriptors = torch.from_numpy(np.array(getattr(read, 'data', read), np.uint8))
    pixels = np.asarray(database.read_keypoints(image), float)[:, :2] - 0.5
    return FrameFeatures(pixels, descriptors, np.arange(len(pixels)))


def _match(colmap: Any, folder: Path, features: list[FrameFeatures], options: Any) -> None:
    """Verified matches of all pairs of a short clip, of neighbours and similar frames of a long one."""
    if len(features) <= ALL_PAIRS_UP_TO:
        colmap.match_exhaustive(folder / 'database.db', options)
        return
    pairs = frame_pairs(len(features), frame_similarity(features))
    (folder / 'pairs.txt').write_text(''.join(f'{a:06d}.png {b:06d}.png\n' for a, b in pairs))
    colmap.match_image_pairs(folder / 'database.db', options,
                             colmap.ImportedPairingOptions(match_list_path=folder / 'pairs.txt'))


def _tracks(folder: Path, colmap: Any, features: list[FrameFeatures]) -> Tracks:
    """Tracks of the verified matches, each place once however many orientations it has."""
    with colmap.Database.open(folder / 'database.db') as database:
        frame = {image.image_id: int(Path(image.name).stem) for image in database.read_all_images()}
        found = [(colmap.pair_id_to_image_pair(pair), geometry.inlier_matches)
                 for pair, geometry in zip(*database.read_two_view_geometries())]
    places = [np.unique(f.pixels, axis=0, return_inverse=True) for f in features]
    matches = []
    for (one, other), index in found:
        first, second = frame[one], frame[other]
        if len(index):
            index = np.unique(np.stack((places[first][1].reshape(-1)[index[:, 0]],
                                        places[second][1].reshape(-1)[index[:, 1]]), 1), axis=0)
            matches.append(Matches(first, second, index, np.zeros(len(index))))
    return build_tracks([FrameFeatures(pixels, torch.zeros(0, 1), np.zeros(0, int)) for pixels, _ in places], matches)


def _cameras(model: Any, names: list[str], tracks: Tracks) -> ColmapCameras:
    """Cameras of a model of COLMAP."""
    poses, placed = np.tile(np.eye(4), (len(names), 1, 1)), np.zeros(len(names), dtype=bool)
    for image in model.images.values():
        if image.has_pose:
            index = names.index(image.name)
            poses[index, :3], placed[index] = image.cam_from_world().matrix(), True
    camera = next(iter(model.cameras.values()))
    focal, _, _, *radial = camera.params
    return ColmapCameras(poses, placed, float(focal), np.pad(np.array(radial, float), (0, LENS - len(radial))), tracks)
