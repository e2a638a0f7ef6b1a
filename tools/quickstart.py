"""Train small detectors on generated images and compare them: python tools/quickstart.py [--minutes 5]."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from frozenmm.demo.quickstart import Budget, Places, compare  # noqa: E402
from frozenmm.engine.command_line import run_tool  # noqa: E402
from frozenmm.errors import UserError  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, help='train each row for a time, which depends on the machine and its '
                        'load; default: $MINUTES, else the recipe, a number of iterations for each row')
    parser.add_argument('--iterations', type=int, help='the same number of iterations for all rows')
    parser.add_argument('--rows', default='abc', help='letters of the rows to run')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'scenes')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'quickstart')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    minutes = args.minutes
    if minutes is None and args.iterations is None and os.environ.get('MINUTES'):
        try:
            minutes = float(os.environ['MINUTES'])
        except ValueError as error:
            raise UserError(f'MINUTES must be a number, got {os.environ["MINUTES"]!r}') from error
    compare(Budget(minutes, args.iterations), Places(ROOT / 'configs' / 'quickstart', args.data_root, args.work_dir),
            letters=args.rows, seed=args.seed, options=args.cfg_options, say=lambda text: print(text, flush=True))


if __name__ == '__main__':
    run_tool(main)
