"""Fusion of the small real RGB-D sequence: connected surface, agreement of the re-rendered depth with the sensor.

    python benchmarks/recon_fusion.py --data DIR [--recon OUT] [--pictures FOLDER] [--json FILE]

DIR holds rgbd_kitchen. Rows: known poses and sensor depth at 2 and 3 cm; with `--recon OUT` also the mesh of an earlier
`tools/recon.py DIR/rgbd_kitchen/color --out OUT ...`, brought to metres by the similarity of the camera centres.
A pixel agrees where the sensor measured and the mesh, drawn from the frame's place, lies within 2 voxels; a pixel that
no face covers does not. Pictures show the mesh from outside, and from a camera's place beside the photograph.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np
import torch
from machine import describe_machine

from frozenmm.compat.files import write_whole
from frozenmm.datasets.rgbd import RGBDSequence, read_sequence
from frozenmm.evaluation.trajectory import fit_similarity
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
    parser.add_argument('--recon', type=Path, help='results of tools/recon.py on all images of rgbd_kitchen')
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
    dense = np.prod(np.ptp(mesh.vertices, axis=0) / voxel_size) * 20 / 1e6
    return mesh, {'seconds': time.perf_counter() - begin, 'megabytes': volume.megabytes, 'dense_megabytes': dense}


def reconstructed(sequence: RGBDSequence, out: Path) -> tuple[Mesh, np.ndarray]:
    """The mesh in metres in the world of the sequence, and the found poses there."""
    mesh, poses = read_ply(out / 'mesh.ply'), read_tum(out / 'poses.txt')[1]
    if len(poses) != len(sequence):
        raise ValueError(f'{out} has {len(poses)} frames, the sequence {len(sequence)}; reconstruct all of them')
    move = fit_similarity(torch.from_numpy(poses[:, :3, 3]), torch.from_numpy(sequence.poses_c2w[:, :3, 3]))
    vertices = move(torch.from_numpy(mesh.vertices)).numpy().astype(np.float32)
    moved = poses.copy()
    moved[:, :3, :3] = move.rotation.numpy() @ poses[:, :3, :3]
    moved[:, :3, 3] = move(torch.from_numpy(poses[:, :3, 3])).numpy()
    return Mesh(vertices, mesh.faces, mesh.colours), moved


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
    if args.recon:
        mesh, poses = reconstructed(sequence, args.recon)
        edges = np.linalg.norm(mesh.vertices[mesh.faces[:, 0]] - mesh.vertices[mesh.faces[:, 1]], axis=1)
        voxel_size = float(np.median(edges)) * 1.2  # marching cubes cuts a cube's edges to about this share
        rows['tools/recon.py'] = describe(mesh, sequence, poses, voxel_size)
        rows['tools/recon.py']['agreement_5_percent'] = agreement(mesh, sequence, poses, share=0.05)
        if args.pictures:
            draw(args.pictures / 'recon.png', mesh, sequence, poses)
    for name, row in rows.items():
        print(f'{name}: ' + ', '.join(f'{key} {value:.3f}' if isinstance(value, float) else f'{key} {value}'
                                      for key, value in row.items()))
    write_whole(args.json, json.dumps({'rows': rows, 'machine': describe_machine()}, indent=1))


if __name__ == '__main__':
    main()
