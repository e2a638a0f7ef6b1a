"""Draw images as a pipeline gives them: python tools/analysis/browse_data.py CONFIG [--count 16] [--out browse]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--stage', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--count', type=int, default=16, help='number of images')
    parser.add_argument('--start', type=int, default=0, help='index of the first one')
    parser.add_argument('--out', type=Path, default=Path('browse'), help='folder for the pictures')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from frozenmm.engine.browsing import browse
    from frozenmm.engine.launch import load_config
    cfg = load_config(args.config, args.cfg_options)
    for path in browse(cfg, args.out, stage=args.stage, count=args.count, start=args.start):
        print(path, flush=True)


if __name__ == '__main__':
    run_tool(main)
