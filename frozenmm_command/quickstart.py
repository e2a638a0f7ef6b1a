"""Train small detectors on generated images and compare them: frozenmm quickstart [--minutes 2]."""
from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('--minutes', type=float, default=float(os.environ.get('MINUTES') or 2),
                        help='training time of each row; default: $MINUTES, else 2')
    parser.add_argument('--iterations', type=int, help='a number of iterations instead of minutes')
    parser.add_argument('--rows', default='abc', help='letters of the rows to run')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--data-root', default='data/scenes', help='folder of the scenes; default: data/scenes')
    parser.add_argument('--work-dir', default='work_dirs/quickstart', help='default: work_dirs/quickstart')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.demo.generated_scenes import PALETTE
    from frozenmm.demo.quickstart import ROWS, Budget, run_row, write_report
    from frozenmm.demo.scenes import CLASSES, write_scenes
    from frozenmm.errors import UserError
    from frozenmm.zoo.folders import data_folder
    budget = Budget(iterations=args.iterations) if args.iterations else Budget(minutes=args.minutes)
    folder = Path(args.work_dir, str(budget).replace(' ', '-'))
    rows = [row for row in ROWS if row.letter in args.rows]
    if not rows:
        raise UserError(f'no row is chosen by --rows {args.rows}; the rows are {"".join(row.letter for row in ROWS)}')
    write_scenes(args.data_root)
    results = []
    for row in rows:
        print(f'\n=== row ({row.letter}): {row.meaning}; {budget} of training ===', flush=True)
        results.append(run_row(row, budget, folder / row.letter, configs=data_folder() / 'configs' / 'quickstart',
                               data_root=args.data_root, seed=args.seed, options=args.cfg_options))
    text = write_report(results, budget, folder, classes=CLASSES, palette=PALETTE)
    print(f'\n{text}\nPictures: {folder / "pictures"}. A finished row is not trained again; remove {folder} to repeat.')
