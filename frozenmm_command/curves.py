"""Plot scalars of trainings: frozenmm curves WORK_DIR ... [--keys loss lr] [--out curves.png]."""
from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('work_dirs', nargs='+', help='work folders of trainings')
    parser.add_argument('--keys', nargs='+', default=['loss'], help='scalars')
    parser.add_argument('--out', default='curves.png', help='picture to write')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.visualization.curves import plot_scalars
    print(plot_scalars(args.work_dirs, args.keys, args.out))
