"""Reconstruct a recorded clip.

    python benchmarks/recon_e2e.py CASE --data DIR --save RESULT.npz [--mode M] [--seed S]

RESULT holds poses_c2w (F, 4, 4), depth (F, h, w), focal_px at the images' width and the seconds that it took, the
reading of images included.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# the solver makes many small products, on which several BLAS threads only wait for each other; read at numpy's import
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import numpy as np
from safetensors.numpy import load_file

from frozenmm.reconstruction.align import SOLVERS, AlignSettings, align
from frozenmm.reconstruction.frames import read_images, resize_depth


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('case', type=Path, help='folder of a recorded e2e_clip case')
    parser.add_argument('--data', type=Path, help='folder of the data sets; default: data/ beside golden/')
    parser.add_argument('--save', type=Path, required=True, help='the result, an .npz file')
    parser.add_argument('--mode', choices=SOLVERS, default='tracks')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    case = json.loads((args.case / 'case.json').read_text())
    data = args.data or args.case.resolve().parents[2] / 'data'
    affine = load_file(args.case / 'tensors.safetensors')['in.affine_depth'].astype(np.float32)
    begin = time.perf_counter()
    images = read_images([data / case['data'] / 'color' / f'{frame}.jpg' for frame in case['frames']])
    settings = AlignSettings(mode=args.mode, seed=args.seed)
    result = align(images, resize_depth(affine, images.shape[1:3]), settings=settings)
    seconds = time.perf_counter() - begin
    args.save.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.save.with_name(f'{args.save.name}.{os.getpid()}.npz')
    np.savez_compressed(temporary, poses_c2w=result.poses_c2w, depth=result.depth.astype(np.float32),
                        focal_px=result.focal_px, seconds=seconds)
    temporary.rename(args.save)
    print(f'{case["name"]}: {len(images)} frames, {seconds:.1f} s, focal {result.focal_px:.1f} px')


if __name__ == '__main__':
    main()
