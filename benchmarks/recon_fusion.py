"""Fusion of the small real RGB-D sequence: connected surface, agreement of the re-rendered depth with the sensor.

    python benchmarks/recon_fusion.py --data DIR [--case CASE ...] [--pictures FOLDER] [--json FILE]

DIR holds rgbd_kitchen. Rows: known poses and sensor depth at 2 and 3 cm; with `--case` (recorded e2e_clip cases of
this sequence) also what `tools/recon.py` makes of its images and its recorded affine depth, brought to metres by the
similarity of the camera centres and then by one factor, the median of sensor over mesh (the scale is free, and the data
set's own is known to 5 % from the centres); and the same with the demonstration depth network.
A pixel agrees where the sensor measured and the mesh, drawn from the frame's place, lies within 2 voxels; a pixel that
no face covers does not. Pictures show the mesh from outside, and from a camera's place beside the photograph.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np
import torch
from machine import describe_machine
from safetensors.numpy import load_file

from frozenmm.compat.files import write_whole
from frozenmm.datasets.rgbd import RGBDSequence, read_sequence
from frozenmm.evaluation.trajectory import fit_similarity
from frozenmm.reconstruction.command import reconstruct_from
from frozenmm.reconstruction.fusion import fitting_voxel_size
from frozenmm.reconstruction.mesh import Mesh, component_of_faces, drop_specks, largest_share
from frozenmm.reconstruction.outputs import read_ply, read_tum
from frozenmm.reconstruction.render import outside_view, render_mesh
from frozenmm.reconstruction.sparse_tsdf import fuse_frames

SPECKS = 100
SHOWN = 12
OUTSIDE = (480, 640)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--data', type=Path, required=True, help='folder that holds rgbd_kitchen')
    parser.add_argument('--case', type=Path, nargs='+', default=[],
                        help='folders of recorded e2e_clip cases of rgbd_kitchen')
    parser.add_argument('--pictures', type=Path, help='write pictures of the meshes here')
    parser.add_argument('--json', type=Path, default=Path('benchmarks/results/recon_fusion.json'))
    return parser.parse_args()


def known_poses(sequence: RGBDSequence, voxel_size: float) -> tuple[Mesh, dict[str, float]]:
    depth = torch.from_numpy(np.stack([sequence.depth(i) for i in range(len(sequence))]))
    colour = torch.from_numpy(np.stack([sequence.image(i) for i in range(len(sequence))]))
    begin = time.perf_counter()
    volume = fuse_frames(depth, colour, torch.from_numpy(sequence.intrinsics_px), torch.from_numpy(sequence.poses_c2w),
                         voxel_size=voxel_size)
    mesh = volume.extract_mesh()
    dense = float(np.prod(np.ptp(mesh.vertices, axis=0) / voxel_size)) * 20 / 1e6
    return mesh, {'seconds': time.perf_counter() - begin, 'megabytes': volume.megabytes, 'dense_megabytes': dense}


def reconstruct_case(case: Path, sequence: RGBDSequence, work: Path, *, recorded: bool) -> tuple[
        RGBDSequence, Mesh, np.ndarray, float, float]:
    """Frames, mesh and poses in metres in the world of the sequence, metres per unit, and the voxel in metres."""
    names = json.loads((case / 'case.json').read_text())['frames']
    stems = [file.stem for file in sequence.images]
    frames = sequence.select(np.isin(stems, names))
    images = work / 'images'
    images.mkdir(parents=True, exist_ok=True)
    for file in frames.images:
        shutil.copy(file, images / file.name)
    depth = None
    if recorded:
        depth = work / 'depth.npz'
        np.savez(depth, depth=load_file(case / 'tensors.safetensors')['in.affine_depth'].astype(np.float32))
    out = work / ('recorded' if recorded else 'network')
    voxel_size = fitting_voxel_size(reconstruct_from(images, out, depth=depth))
    mesh, poses = read_ply(out / 'mesh.ply'), read_tum(out / 'poses.txt')[1]
    move = fit_similarity(torch.from_numpy(poses[:, :3, 3]), torch.from_numpy(frames.poses_c2w[:, :3, 3]))
    vertices = move(torch.from_numpy(mesh.vertices)).numpy().astype(np.float32)
    moved = poses.copy()
    moved[:, :3, :3] = move.rotation.numpy() @ poses[:, :3, :3]
    moved[:, :3, 3] = move(torch.from_numpy(poses[:, :3, 3])).numpy()
    scale = float(move.scale)
    return frames, Mesh(vertices, mesh.faces, mesh.colours), moved, scale, voxel_size * scale


def agreement(mesh: Mesh, sequence: RGBDSequence, poses: np.ndarray, *, metres: float = 0.0,
              share: float = 0.0) -> float:
    """Share of the measured pixels of all frames where the drawn mesh lies within metres + share of the depth."""
    good = total = 0
    for index, pose in enumerate(poses):
        sensor = sequence.depth(index)
        _, depth = render_mesh(mesh, sequence.intrinsics_px, pose, sensor.shape)
        measured = sensor > 0
        good += int((np.abs(depth - sensor) <= metres + share * sensor)[measured].sum())
        total += int(measured.sum())
    return good / total


def depth_factor(mesh: Mesh, sequence: RGBDSequence, poses: np.ndarray) -> float:
    """Median over the measured pixels of every fourth frame of sensor depth over drawn depth."""
    ratios = []
    for index in range(0, len(poses), 4):
        sensor = sequence.depth(index)
        _, depth = render_mesh(mesh, sequence.intrinsics_px, poses[index], sensor.shape)
        both = (sensor > 0) & (depth > 0)
        ratios.append(sensor[both] / depth[both])
    return float(np.median(np.concatenate(ratios)))


def describe(mesh: Mesh, sequence: RGBDSequence, poses: np.ndarray, voxel_size: float) -> dict[str, float]:
    clean = drop_specks(mesh, SPECKS)
    return {'voxel_m': voxel_size, 'faces': len(mesh.faces), 'largest_share': largest_share(mesh),
            'parts': len(component_of_faces(clean)[1]), 'faces_without_specks': len(clean.faces),
            'largest_share_without_specks': largest_share(clean),
            'agreement_2_voxels': agreement(clean, sequence, poses, metres=2 * voxel_size)}


def draw(path: Path, mesh: Mesh, sequence: RGBDSequence, poses: np.ndarray) -> None:
    intrinsics, pose = outside_view(mesh, poses, OUTSIDE)
    outside = render_mesh(mesh, intrinsics, pose, OUTSIDE)[0]
    photograph = sequence.image(SHOWN)
    inside = render_mesh(mesh, sequence.intrinsics_px, poses[SHOWN], photograph.shape[:2])[0]
    picture = np.concatenate((outside, np.concatenate((photograph, inside))), 1)
    write_whole(path, cv2.imencode('.png', picture[..., ::-1])[1].tobytes())


def main() -> None:
    args = parse_args()
    sequence = read_sequence(args.data / 'rgbd_kitchen', 'folder')
    rows = {}
    for voxel_size in (0.02, 0.03):
        mesh, cost = known_poses(sequence, voxel_size)
        name = f'sensor, {100 * voxel_size:.0f} cm'
        rows[name] = describe(mesh, sequence, sequence.poses_c2w, voxel_size) | cost
        if args.pictures:
            draw(args.pictures / f'sensor_{100 * voxel_size:.0f}cm.png', drop_specks(mesh, SPECKS), sequence,
                 sequence.poses_c2w)
    for case in args.case:
        with tempfile.TemporaryDirectory() as work:
            for recorded in (True, False):
                frames, mesh, poses, scale, voxel = reconstruct_case(case, sequence, Path(work), recorded=recorded)
                source = 'recorded depth' if recorded else 'demonstration network'
                name = f'{case.name.removeprefix("e2e_clip__")}, {source}'
                by_centres = agreement(mesh, frames, poses, metres=2 * voxel)
                factor = depth_factor(mesh, frames, poses)
                mesh = Mesh(mesh.vertices * np.float32(factor), mesh.faces, mesh.colours)
                poses[:, :3, 3] *= factor
                rows[name] = describe(mesh, frames, poses, voxel * factor) | {
                    'metres_per_unit': scale, 'depth_factor': factor, 'agreement_2_voxels_by_centres': by_centres}
                for share in (0.05, 0.1):
                    rows[name][f'agreement_{100 * share:.0f}_percent'] = agreement(mesh, frames, poses, share=share)
                if args.pictures:
                    draw(args.pictures / f'{name.replace(", ", "_").replace(" ", "_")}.png', mesh, frames, poses)
    for name, row in rows.items():
        print(f'{name}: ' + ', '.join(f'{key} {value:.3f}' if isinstance(value, float) else f'{key} {value}'
                                      for key, value in row.items()))
    write_whole(args.json, json.dumps({'rows': rows, 'machine': describe_machine()}, indent=1))


if __name__ == '__main__':
    main()
