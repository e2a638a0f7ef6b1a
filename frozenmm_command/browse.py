"""Draw images as a pipeline gives them: frozenmm browse CONFIG [--count 16] [--out browse]."""
from __future__ import annotations

import argparse
from pathlib import Path

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    options.add_config(parser)
    parser.add_argument('--stage', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--count', type=int, default=16, help='number of images')
    parser.add_argument('--start', type=int, default=0, help='index of the first one')
    parser.add_argument('--out', type=Path, default=Path('browse'), help='folder for the pictures')
    options.add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.engine.browsing import browse
    from frozenmm.engine.launch import load_config
    cfg = load_config(options.config_file(args.config), args.cfg_options)
    for path in browse(cfg, args.out, stage=args.stage, count=args.count, start=args.start):
        print(path, flush=True)
