"""Train small detectors on generated images and compare them: frozenmm quickstart [--minutes 5]."""
from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('--minutes', type=float, help='train each row for a time, which depends on the machine and its '
                        'load; default: $MINUTES, else the recipe, a number of iterations for each row')
    parser.add_argument('--iterations', type=int, help='the same number of iterations for all rows')
    parser.add_argument('--rows', default='abc', help='letters of the rows to run')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--data-root', default='data/scenes', help='folder of the scenes; default: data/scenes')
    parser.add_argument('--work-dir', default='work_dirs/quickstart', help='default: work_dirs/quickstart')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.demo.quickstart import Budget, Places, compare
    from frozenmm.errors import UserError
    from frozenmm.zoo.folders import data_folder
    minutes = args.minutes
    if minutes is None and args.iterations is None and os.environ.get('MINUTES'):
        try:
            minutes = float(os.environ['MINUTES'])
        except ValueError as error:
            raise UserError(f'MINUTES must be a number, got {os.environ["MINUTES"]!r}') from error
    places = Places(data_folder() / 'configs' / 'quickstart', Path(args.data_root), Path(args.work_dir))
    compare(Budget(minutes, args.iterations), places, letters=args.rows, seed=args.seed, options=args.cfg_options,
            say=lambda text: print(text, flush=True))
