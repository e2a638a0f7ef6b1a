"""Reconstruction of a generated room with exact truth: 60 frames, frozen depth distorted as on the recorded clips.

    python benchmarks/recon_room.py [--frames 60] [--seeds 0] [--network] [--pictures FOLDER] [--json FILE]

Rows: true depth times smooth factors and noise, scaled and shifted anew in every frame; with `--network` the embedded
demonstration depth network. Poses and focal length come from mode `tracks`. The F-score counts points within 2 % of the
longest side of the room.
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

import numpy as np
from machine import describe_machine

from frozenmm.apis.reconstruction_score import PosedDepth, score_reconstruction
from frozenmm.compat.files import write_whole
from frozenmm.demo.light_depth import LightDepth
from frozenmm.demo.rooms.clip import ROOM, RoomClip, RoomSettings, distort_depth, render_room
from frozenmm.reconstruction.align import AlignSettings, align
from frozenmm.reconstruction.depth_sources import NetworkDepth
from frozenmm.reconstruction.fusion import fuse
from frozenmm.reconstruction.report import draw_mesh, draw_report

SHARE = 0.02
SHOWN = ('ate_rmse', 'ate_percent', 'focal_error_percent', 'abs_rel', 'chamfer_l1', 'precision', 'recall', 'f_score',
         'seconds')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--frames', type=int, default=60)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='of the room, the distortion and the solver')
    parser.add_argument('--network', action='store_true', help='a second row with the demonstration network')
    parser.add_argument('--pictures', type=Path, help='write reports here')
    parser.add_argument('--json', type=Path, default=Path('benchmarks/results/recon_room.json'))
    return parser.parse_args()


def run(clip: RoomClip, frozen: np.ndarray, seed: int, name: str, pictures: Path | None) -> dict[str, float]:
    begin = time.perf_counter()
    result = align(clip.images, frozen, settings=AlignSettings(seed=seed))
    mesh = fuse(clip.images, result, min_faces=100)
    seconds = time.perf_counter() - begin
    height, width = frozen.shape[1:]
    truth, found = (np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
                    for focal in (clip.focal_px, result.focal_px))
    scores = score_reconstruction(PosedDepth(result.depth, result.poses_c2w, found),
                                  PosedDepth(clip.depth, clip.poses_c2w, truth), mesh,
                                  threshold=SHARE * float((ROOM[1] - ROOM[0]).max()))
    scores['ate_percent'] = 100 * scores['ate_rmse'] / scores['path_length']
    if pictures:
        draw_report(pictures / f'{name}.png', clip.images, frozen, result, title=name)
        draw_mesh(pictures / f'{name}_mesh.png', mesh, clip.images, result)
    return scores | {'seconds': seconds}


def main() -> None:
    args = parse_args()
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in args.seeds:
        clip = render_room(RoomSettings(frames=args.frames, path_m=1.8, turn_deg=30, exposure=0.06, seed=seed))
        sources = {'distorted': distort_depth(clip.depth, seed=seed)}
        if args.network:
            sources['demonstration network'] = NetworkDepth(LightDepth()).maps(clip.images)
        for name, frozen in sources.items():
            scores = run(clip, frozen, seed, f'{name} {seed}'.replace(' ', '_'), args.pictures)
            rows.setdefault(name, []).append(scores)
            print(f'{name}, seed {seed}: ' + ', '.join(f'{key} {scores[key]:.4g}' for key in SHOWN), flush=True)
    write_whole(args.json, json.dumps({'frames': args.frames, 'seeds': args.seeds, 'rows': rows,
                                       'machine': describe_machine()}, indent=1))


if __name__ == '__main__':
    main()
