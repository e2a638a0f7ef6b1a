"""Time, peak memory and error of an alignment against the number of frames, on a walk round a generated room.

    python benchmarks/recon_scaling.py [--frames 20 50 60 100 200] [--mode tracks] [--threads 2]

The walk has 120 frames a round, so motion per frame is the same for every length and long clips close a loop. Every
length runs in a fresh process on the first frames of one clip; the memory is the process's greatest resident size
(VmHWM of Linux; `ru_maxrss` would start at the parent's), libraries, images and predictions included. `cpu_seconds`
counts all threads and holds on a busy machine too. Writes
benchmarks/results/recon_scaling.json.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# the solver makes many small products, on which several BLAS threads only wait for each other; read at numpy's import
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import numpy as np
import torch

from frozenmm.compat.files import write_whole
from frozenmm.demo.rooms.clip import RoomSettings, distort_depth, render_room
from frozenmm.evaluation.depth import align_depth, depth_errors
from frozenmm.evaluation.trajectory import trajectory_errors
from frozenmm.reconstruction.align import AlignSettings, align

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ('frames', 'seconds', 'cpu_seconds', 'peak_mib', 'path_m', 'ate_percent_of_path', 'abs_rel',
           'focal_error_percent')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', nargs='+', type=int, default=[20, 50, 60, 100, 200])
    parser.add_argument('--mode', default='tracks')
    parser.add_argument('--size', nargs=2, type=int, default=[240, 320], metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--clip', help=argparse.SUPPRESS)
    parser.add_argument('--one', type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(clip: str, frames: int, mode: str, threads: int) -> dict[str, float]:
    """One row, of the first frames of a stored clip."""
    torch.set_num_threads(threads)
    with np.load(clip) as content:
        images, depth, poses = (content[name][:frames].copy() for name in ('images', 'depth', 'poses'))
        focal = float(content['focal'])
    frozen = distort_depth(depth)
    begin, worked = time.perf_counter(), time.process_time()
    result = align(images, frozen, settings=AlignSettings(mode=mode))
    seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    status = Path('/proc/self/status').read_text()
    peak = int(status.partition('VmHWM:')[2].split()[0])
    truth = torch.from_numpy(poses[:, :3, 3])
    path = float(truth.diff(dim=0).norm(dim=1).sum())
    ate = trajectory_errors(torch.from_numpy(result.poses_c2w[:, :3, 3]), truth)['ate_rmse']
    found, real = torch.from_numpy(result.depth), torch.from_numpy(depth)
    return {'frames': frames, 'seconds': seconds, 'cpu_seconds': worked, 'peak_mib': peak / 1024,
            'path_m': path, 'ate_percent_of_path': 100 * ate / path,
            'abs_rel': depth_errors(align_depth(found, real), real)['abs_rel'],
            'focal_error_percent': 100 * (result.focal_px / focal - 1), 'warnings': result.warnings}


def main() -> None:
    args = parse_args()
    if args.one is not None:
        print(json.dumps(measure(args.clip, args.one, args.mode, args.threads)))
        return
    rows: list[dict] = []
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'clip.npz')
        clip = render_room(RoomSettings(frames=max(args.frames), size=tuple(args.size), frames_per_round=120, samples=1,
                                        boxes=14, exposure=0.03, seed=0))
        np.savez(path, images=clip.images, depth=clip.depth, poses=clip.poses_c2w, focal=clip.focal_px)
        print('| ' + ' | '.join(COLUMNS) + ' |', flush=True)
        for frames in args.frames:
            done = subprocess.run([sys.executable, __file__, '--clip', path, '--one', str(frames), '--mode', args.mode,
                                   '--threads', str(args.threads)], capture_output=True, text=True, check=True,
                                  env={**os.environ, 'OMP_NUM_THREADS': str(args.threads)})
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print('| ' + ' | '.join(f'{rows[-1][name]:.4g}' for name in COLUMNS) + ' |', flush=True)
            content = {'mode': args.mode, 'size': args.size, 'threads': args.threads, 'rows': rows,
                       'machine': f'{os.cpu_count()} CPU cores', 'commit': commit.strip()}
            write_whole(ROOT / 'benchmarks' / 'results' / 'recon_scaling.json', json.dumps(content, indent=1) + '\n')


if __name__ == '__main__':
    main()
