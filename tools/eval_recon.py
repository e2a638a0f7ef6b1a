"""Score a reconstruction: python tools/eval_recon.py OUT SEQUENCE --kind scannet [--json FILE].

OUT is the folder that tools/recon.py wrote for the colour images of SEQUENCE.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.apis.reconstruction_score import DEFAULT_THRESHOLD_M, score_folder
from frozenmm.compat.files import write_whole
from frozenmm.datasets.rgbd import FORMATS, read_sequence
from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('out', help='folder of the results')
    parser.add_argument('sequence', help='folder of the sequence with depth and poses')
    parser.add_argument('--kind', choices=sorted(FORMATS), default='folder', help='layout of the sequence')
    parser.add_argument('--threshold', type=float, default=DEFAULT_THRESHOLD_M, help='of the F-score, metres')
    parser.add_argument('--json', help='write the scores to this file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    scores = score_folder(args.out, read_sequence(args.sequence, args.kind), threshold=args.threshold)
    for name, value in scores.items():
        print(f'{name:22} {value:10.4f}')
    if args.json:
        write_whole(args.json, json.dumps(scores, indent=1))


if __name__ == '__main__':
    run_tool(main)
