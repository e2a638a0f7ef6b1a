"""Plot scalars of trainings: python tools/analysis/plot_log.py WORK_DIR ... [--keys loss lr] [--out curves.png]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from frozenmm.engine.command_line import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', help='work folders of trainings')
    parser.add_argument('--keys', nargs='+', default=['loss'], help='scalars')
    parser.add_argument('--out', default='curves.png', help='picture to write')
    args = parser.parse_args()
    from frozenmm.visualization.curves import plot_scalars
    print(plot_scalars(args.work_dirs, args.keys, args.out))


if __name__ == '__main__':
    run_tool(main)
