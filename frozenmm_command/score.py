"""Score a reconstruction: frozenmm score OUT SEQUENCE --kind scannet [--json FILE].

OUT is the folder that `frozenmm recon` wrote for the colour images of SEQUENCE.
"""
from __future__ import annotations

import argparse
import json

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('out', help='folder of the results')
    parser.add_argument('sequence', help='folder of the sequence with depth and poses')
    parser.add_argument('--kind', default='folder',
                        help='layout of the sequence: folder (default), nyu, scannet, 7scenes, tum or kitti')
    parser.add_argument('--threshold', type=float, help='of the F-score, metres; default: 0.05')
    parser.add_argument('--json', help='write the scores to this file')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.apis.reconstruction_score import score_folder
    from frozenmm.compat.files import write_whole
    from frozenmm.datasets.rgbd import read_sequence
    scores = score_folder(args.out, read_sequence(args.sequence, args.kind), **options.given(args, 'threshold'))
    for name, value in scores.items():
        print(f'{name:22} {value:10.4f}')
    if args.json:
        write_whole(args.json, json.dumps(scores, indent=1))
