"""Clips as users have them: distorted, cropped, copied, shuffled, blurred, turned only; ours beside COLMAP.

    python benchmarks/recon_field.py --shared ../shared [--only tele lund ...] [--no-colmap]

Variations of the real sequence `rgbd_kitchen`, and photographs. Printed are the errors of focal length and rotation
(the worst frame), CPU seconds, and the warnings; writes benchmarks/results/recon_field.json. The frozen depth is that
of the default network. COLMAP runs where `pycolmap` is installed.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# the solver makes many small products, on which several BLAS threads only wait for each other; read at numpy's import
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np
from machine import describe_machine
from PIL import Image

from frozenmm.compat.files import write_whole
from frozenmm.errors import UserError
from frozenmm.reconstruction.command import reconstruct_from
from frozenmm.reconstruction.given_lens import FILM_DIAGONAL_MM

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'recon_field.json'
FOCAL = 262.5
"""Of rgbd_kitchen, in pixels of its 320x240 images."""
PHONE_FOCAL = 405.6 / 408
"""Of the phone of berlin, over the longer side: what COLMAP 4.2 finds there."""


@dataclass
class Case:
    """A clip with what is known of its cameras.

    Attributes:
        images: of one or several sizes, BGR.
        focal_px: at the images' size (of a folder: over the longer side); None: not known.
        rotations: (F, 3, 3) camera to world; None: not known.
        depth_kind: of the maps, where they are given in place of the network's.
        depth: maps of a sensor in millimetres.
        folder: of images that are files already.
        exif_error: the images are JPEG files whose EXIF says this times the focal length.
    """

    images: list[np.ndarray] = field(default_factory=list)
    focal_px: float | None = None
    rotations: np.ndarray | None = None
    depth_kind: str = ''
    depth: list[np.ndarray] | None = None
    folder: Path | None = None
    exif_error: float | None = None


def kitchen(shared: Path, frames: Sequence[int] = range(0, 400, 20)) -> Case:
    """Frames of the real sequence, by their numbers."""
    return sequence(shared / 'data' / 'rgbd_kitchen', frames)


def sequence(folder: Path, frames: Sequence[int]) -> Case:
    """Frames of a recording with poses, by their numbers."""
    names = [f'{number:06d}' for number in frames]
    rows = {line.split()[0]: np.array(line.split()[1:], float).reshape(4, 4)[:3, :3]
            for line in (folder / 'poses.txt').read_text().splitlines() if line.strip()}
    focal = float((folder / 'intrinsics.txt').read_text().split()[0])
    return Case([cv2.imread(str(folder / 'color' / f'{name}.jpg')) for name in names], focal,
                np.stack([rows[name] for name in names]),
                depth=[cv2.imread(str(folder / 'depth' / f'{name}.png'), -1) for name in names])


def chosen(case: Case, index: list[int]) -> Case:
    """Some frames, in this order."""
    rotations = None if case.rotations is None else case.rotations[index]
    return replace(case, images=[case.images[i] for i in index], rotations=rotations,
                   depth=None if case.depth is None else [case.depth[i] for i in index])


def bent(case: Case, place: Callable[[np.ndarray], np.ndarray]) -> Case:
    """Images of a lens that sees at (u, v) what a pinhole sees at `place` of the plane point (H, W, 2)."""
    height, width = case.images[0].shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    source = (place((grid - centre) / case.focal_px) * case.focal_px + centre).astype(np.float32)
    images = [cv2.remap(image, source, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT) for image in case.images]
    return replace(case, images=images, depth=None)


def barrel(seen: np.ndarray, k: float = -0.2) -> np.ndarray:
    """Ideal places of what is seen at (..., 2) with x (1 + k |x|^2)."""
    ideal = seen
    for _ in range(30):
        ideal = seen / (1 + k * (ideal**2).sum(-1, keepdims=True))
    return ideal


def fisheye(seen: np.ndarray) -> np.ndarray:
    """Ideal places of what an equidistant fisheye sees at (..., 2)."""
    angle = np.maximum(np.linalg.norm(seen, axis=-1, keepdims=True), 1e-9)
    return seen * np.tan(np.minimum(angle, 1.5)) / angle


def cropped(case: Case, top: int, left: int, size: tuple[int, int], factor: int = 1) -> Case:
    """A part of (height, width) of every image, enlarged."""
    parts = [image[top:top + size[0], left:left + size[1]] for image in case.images]
    large = [cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) for part in parts]
    return replace(case, images=large, focal_px=case.focal_px * factor, depth=None)


def upright(case: Case) -> Case:
    """Landscape and portrait of one camera: every third image upright."""
    images = [image[:, 70:250] if index % 3 == 1 else image[30:210, 40:280] for index, image in enumerate(case.images)]
    return replace(case, images=images, depth=None)


def resized(case: Case, factor: float) -> Case:
    """Images made smaller."""
    images = [cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for image in case.images]
    return replace(case, images=images, focal_px=case.focal_px * factor, depth=None)


def turned(shared: Path, frames: int = 12) -> Case:
    """Views of one photograph by a camera that only turns."""
    photo = cv2.imread(str(shared / 'field/reconstruction/berlin/01.jpg'))
    height, width = photo.shape[:2]
    longer = max(height, width)
    big = np.array([[PHONE_FOCAL * longer, 0, width / 2], [0, PHONE_FOCAL * longer, height / 2], [0, 0, 1]])
    small = np.array([[FOCAL, 0, 119.5], [0, FOCAL, 89.5], [0, 0, 1]])
    images, rotations = [], []
    for angle in np.linspace(-0.2, 0.2, frames):
        rotation = cv2.Rodrigues(np.array([0.08 * np.sin(9 * angle), angle, 0]))[0]
        images.append(cv2.warpPerspective(photo, small @ rotation.T @ np.linalg.inv(big), (240, 180),
                                          flags=cv2.INTER_AREA))
        rotations.append(rotation)
    return Case(images, FOCAL, np.stack(rotations))


def flat(shared: Path, frames: int = 12) -> Case:
    """A camera that moves before a photograph on a wall."""
    photo = cv2.resize(cv2.imread(str(shared / 'field/reconstruction/berlin/02.jpg')), None, fx=2, fy=2)
    height, width = photo.shape[:2]
    wall = np.array([[4 / width, 0, -2], [0, 4 / width, -2 * height / width], [0, 0, 1]])
    camera = np.array([[FOCAL, 0, 159.5], [0, FOCAL, 119.5], [0, 0, 1]])
    images, rotations = [], []
    for step in np.linspace(-1, 1, frames):
        rotation = cv2.Rodrigues(np.array([0.1 * np.cos(4 * step), -0.25 * step, 0.05 * step]))[0]
        view = np.column_stack((rotation.T[:, :2], rotation.T @ np.array([-0.5 * step, 0.2 * np.sin(3 * step), 1.8])))
        images.append(cv2.warpPerspective(photo, camera @ view @ wall, (320, 240), flags=cv2.INTER_AREA))
        rotations.append(rotation)
    return Case(images, FOCAL, np.stack(rotations))


def still(case: Case, frames: int = 8) -> Case:
    """One view with the noise of a sensor."""
    noise = np.random.default_rng(0)
    images = [np.clip(case.images[0] + noise.normal(0, 4, case.images[0].shape), 0, 255).astype(np.uint8)
              for _ in range(frames)]
    return Case(images, FOCAL, np.tile(np.eye(3), (frames, 1, 1)))


def cases(shared: Path) -> dict[str, Callable[[], Case]]:
    """Every clip by name."""
    field_sets, base = shared / 'field' / 'reconstruction', kitchen(shared)
    room = shared / 'data' / 'photo_room'
    base_room = sequence(room, range(20))
    shuffled = np.random.default_rng(0).permutation(len(base.images)).tolist()
    return {
        'kitchen': lambda: base,
        'barrel': lambda: bent(base, barrel),
        'pincushion': lambda: bent(base, lambda seen: barrel(seen, 0.1)),
        'fisheye': lambda: bent(base, fisheye),
        'tele': lambda: cropped(kitchen(shared, range(0, 200, 10)), 60, 80, (120, 160)),
        'tele_large': lambda: cropped(kitchen(shared, range(0, 200, 10)), 60, 80, (120, 160), 2),
        'off_centre': lambda: cropped(base, 0, 0, (180, 240)),
        'thrice': lambda: chosen(base, [i for i in range(10) for _ in range(3)]),
        'shuffled': lambda: chosen(base, shuffled),
        'mixed': lambda: upright(base),
        'blurred': lambda: replace(base, images=[cv2.GaussianBlur(image, (0, 0), 2.5) for image in base.images]),
        'three': lambda: chosen(base, [0, 2, 4]),
        'turned': lambda: turned(shared),
        'flat': lambda: flat(shared),
        'still': lambda: still(base),
        'millimetres': lambda: replace(base, depth_kind='metric'),
        'portrait': lambda: cropped(base, 0, 70, (240, 180)),
        'phone_small': lambda: resized(cropped(base, 0, 70, (240, 180)), 0.75),
        'half': lambda: resized(base, 0.5),
        'wide10': lambda: kitchen(shared, range(0, 400, 40)),
        'wide5': lambda: kitchen(shared, range(0, 400, 80)),
        'wide7_portrait': lambda: cropped(kitchen(shared, range(10, 400, 60)), 0, 70, (240, 180)),
        'eight': lambda: kitchen(shared, range(200, 280, 10)),
        'loop': lambda: kitchen(shared, [*range(0, 400, 20), *range(390, 0, -20)]),
        'exif_right': lambda: replace(kitchen(shared, range(0, 200, 10)), exif_error=1.0),
        'exif_tele': lambda: replace(cropped(kitchen(shared, range(0, 200, 10)), 60, 80, (120, 160)), exif_error=1.06),
        'exif_wrong': lambda: replace(base, exif_error=1.5),
        'room': lambda: base_room,
        'room_barrel': lambda: bent(base_room, barrel),
        'room_tele': lambda: cropped(base_room, 60, 80, (120, 160), 2),
        'room_corner': lambda: cropped(base_room, 60, 100, (180, 220)),
        'room_portrait': lambda: cropped(base_room, 0, 70, (240, 180)),
        'room_half': lambda: resized(base_room, 0.5),
        'room_blurred': lambda: replace(base_room, images=[cv2.GaussianBlur(i, (0, 0), 2.5) for i in base_room.images]),
        'room_wide5': lambda: sequence(room, range(0, 20, 4)),
        'room_six': lambda: sequence(room, range(8, 20, 2)),
        'berlin': lambda: Case(focal_px=PHONE_FOCAL, folder=field_sets / 'berlin'),
        'lund': lambda: Case(focal_px=PHONE_FOCAL, folder=field_sets / 'lund')}


def worst_rotation_deg(found: np.ndarray, true: np.ndarray) -> float:
    """Greatest angle between rotations (F, 3, 3) after the one turn that brings most of them together."""
    apart = true @ found.transpose(0, 2, 1)
    angles = np.degrees(np.arccos(np.clip((np.einsum('aij,bij->ab', apart, apart) - 1) / 2, -1, 1)))
    return float(angles[np.median(angles, axis=1).argmin()].max())


def write_case(case: Case, folder: Path) -> tuple[Path, Path | None]:
    """Folders of the images and of the depth maps."""
    if case.folder is not None:
        return case.folder, None
    for kind in ('images', 'depth'):
        (folder / kind).mkdir()
    for index, image in enumerate(case.images):
        _write_image(folder / 'images' / f'{index:03d}', image, case)
        if case.depth is not None:
            cv2.imwrite(str(folder / 'depth' / f'{index:03d}.png'), case.depth[index])
    return folder / 'images', folder / 'depth' if case.depth is not None else None


def _write_image(path: Path, image: np.ndarray, case: Case) -> None:
    if case.exif_error is None:
        cv2.imwrite(str(path.with_suffix('.png')), image)
        return
    picture, exif = Image.fromarray(image[:, :, ::-1]), Image.Exif()
    film = FILM_DIAGONAL_MM / float(np.hypot(*image.shape[:2]))
    exif.get_ifd(0x8769)[41989] = round(case.exif_error * case.focal_px * film)
    picture.save(path.with_suffix('.jpg'), quality=95, exif=exif)


def ours(case: Case, images: Path, depth: Path | None, out: Path) -> dict[str, object]:
    """A run of `frozenmm recon`, in this process."""
    given = {'depth': depth, 'depth_kind': case.depth_kind} if case.depth_kind else {}
    begin = time.process_time()
    try:
        result = reconstruct_from(images, out, options={'mesh': False}, report=lambda *step: None, **given)
    except UserError as error:
        return {'refused': str(error), 'seconds': time.process_time() - begin}
    row: dict[str, object] = {'seconds': time.process_time() - begin, 'focal_px': result.focal_px,
                              'rotations': result.poses_c2w[:, :3, :3], 'warnings': result.warnings}
    if given and case.depth is not None:
        true = np.stack([values / 1000 for values in case.depth])
        known = (true > 0) & (result.depth > 0)
        row['depth_ratio'] = float(np.median(result.depth[known] / true[known]))
        row['invented'] = float(((result.depth > 0) & (true == 0)).mean())
    return row


COLMAP = '''
import json, sys, time
import pycolmap
images, out = sys.argv[1:]
begin = time.process_time()
pycolmap.logging.minloglevel = 3
database = out + '/colmap.db'
reader = pycolmap.ImageReaderOptions(camera_model='SIMPLE_RADIAL')
pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader)
pycolmap.match_exhaustive(database)
models = pycolmap.incremental_mapping(database, images, out)
best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
row = {'seconds': time.process_time() - begin, 'models': len(models)}
if best is not None:
    camera = next(iter(best.cameras.values()))
    row['focal_px'] = camera.params[0]
    pose = lambda image: image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
    row['rotations'] = {i.name: pose(i).rotation.matrix().T.tolist() for i in best.images.values() if i.has_pose}
print('ROW', json.dumps(row))
'''


def colmap(images: Path, out: Path) -> dict[str, object]:
    """COLMAP on the same images in another process; empty where pycolmap is not installed."""
    done = subprocess.run([sys.executable, '-c', COLMAP, images, out], capture_output=True, text=True)
    rows = [line[4:] for line in done.stdout.splitlines() if line.startswith('ROW ')]
    if not rows:
        return {} if "No module named 'pycolmap'" in done.stderr else {'failed': done.stderr.strip()[-300:]}
    return json.loads(rows[0])


def compare(name: str, case: Case, with_colmap: bool) -> dict[str, object]:
    """The row of one clip."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images, depth = write_case(case, folder)
        files = sorted(images.iterdir())
        longer = max(cv2.imread(str(files[0])).shape[:2])
        (folder / 'colmap').mkdir()
        found = ours(case, images, depth, folder / 'out')
        other = colmap(images, folder / 'colmap') if with_colmap else {}
    focal = None if case.focal_px is None else case.focal_px * (longer if case.folder else 1)
    row: dict[str, object] = {'clip': name, 'frames': len(files), **{key: found[key] for key in (
        'seconds', 'warnings', 'refused', 'depth_ratio', 'invented') if key in found}}
    rotations = found.get('rotations')
    if 'focal_px' in found and focal:
        row['focal_percent'] = 100 * (found['focal_px'] / focal - 1)
    if rotations is not None and case.rotations is not None and len(rotations) == len(case.rotations):
        row['rotation_deg'] = worst_rotation_deg(rotations, case.rotations)
    return row | _beside(other, case, files, focal, rotations)


def _beside(other: dict[str, object], case: Case, files: list[Path], focal: float | None,
            rotations: np.ndarray | None) -> dict[str, object]:
    """What COLMAP has found, and how far ours is from it where no truth is known."""
    placed = other.get('rotations')
    if not placed:
        return {'colmap': other.get('failed', 'no model')} if other else {}
    index = [i for i, file in enumerate(files) if file.name in placed]
    there = np.array([placed[files[i].name] for i in index])
    row = {'colmap_seconds': other['seconds'], 'colmap_frames': len(placed), 'colmap_models': other['models']}
    if focal:
        row['colmap_focal_percent'] = 100 * (other['focal_px'] / focal - 1)
    if case.rotations is not None:
        row['colmap_rotation_deg'] = worst_rotation_deg(there, case.rotations[index])
    elif rotations is not None and len(rotations) == len(files):
        row['rotation_to_colmap_deg'] = worst_rotation_deg(rotations[index], there)
    return row


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shared', type=Path, default=ROOT.parent / 'shared', help='holds data/ and field/')
    parser.add_argument('--only', nargs='+', help='names of clips')
    parser.add_argument('--no-colmap', action='store_true', help='ours alone; what is known of COLMAP stays')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    known = json.loads(RESULTS.read_text())['rows'] if RESULTS.is_file() else {}
    for name, make in cases(args.shared).items():
        if args.only and name not in args.only:
            continue
        row = compare(name, make(), not args.no_colmap)
        kept = {key: value for key, value in known.get(name, {}).items() if key.startswith('colmap')}
        known[name] = (kept if args.no_colmap else {}) | row
        numbers = {key: round(value, 2) for key, value in known[name].items() if isinstance(value, float)}
        print(f'{name} ({row["frames"]} frames): ' + ', '.join(f'{key} {value}' for key, value in numbers.items()))
        for sentence in [*row.get('warnings', []), *([row['refused']] if 'refused' in row else [])]:
            print(f'    {sentence}')
        sys.stdout.flush()
        write_whole(RESULTS, json.dumps({'machine': describe_machine(), 'rows': known}, indent=1) + '\n')


if __name__ == '__main__':
    main()
