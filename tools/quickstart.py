"""Train small detectors on generated images and compare them: python tools/quickstart.py [--minutes 2]."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from frozenmm.demo.generated_scenes import PALETTE  # noqa: E402
from frozenmm.demo.quickstart import ROWS, Budget, run_row, write_report  # noqa: E402
from frozenmm.demo.scenes import CLASSES, write_scenes  # noqa: E402
from frozenmm.engine.command_line import run_tool  # noqa: E402
from frozenmm.errors import UserError  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=float(os.environ.get('MINUTES') or 2),
                        help='training time of each row; default: $MINUTES, else 2')
    parser.add_argument('--iterations', type=int, help='a number of iterations instead of minutes')
    parser.add_argument('--rows', default='abc', help='letters of the rows to run')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--data-root', default=str(ROOT / 'data' / 'scenes'))
    parser.add_argument('--work-dir', default=str(ROOT / 'work_dirs' / 'quickstart'))
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    budget = Budget(iterations=args.iterations) if args.iterations else Budget(minutes=args.minutes)
    folder = Path(args.work_dir, str(budget).replace(' ', '-'))
    rows = [row for row in ROWS if row.letter in args.rows]
    if not rows:
        raise UserError(f'no row is chosen by --rows {args.rows}; the rows are {"".join(row.letter for row in ROWS)}')
    write_scenes(args.data_root)
    results = []
    for row in rows:
        print(f'\n=== row ({row.letter}): {row.meaning}; {budget} of training ===', flush=True)
        results.append(run_row(row, budget, folder / row.letter, configs=ROOT / 'configs' / 'quickstart',
                               data_root=args.data_root, seed=args.seed, options=args.cfg_options))
    text = write_report(results, budget, folder, classes=CLASSES, palette=PALETTE)
    print(f'\n{text}\nPictures: {folder / "pictures"}. A finished row is not trained again; remove {folder} to repeat.')


if __name__ == '__main__':
    run_tool(main)
