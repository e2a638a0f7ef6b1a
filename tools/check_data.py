"""Look at data before training on it: python tools/check_data.py CONFIG|FOLDER [--full] [--sheet OUT.png]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('target', help='a config, or a folder of data')
    parser.add_argument('--full', action='store_true', help='look at the pixels of all pictures, not of a sample')
    parser.add_argument('--sheet', metavar='OUT', help='write a picture of samples with their targets')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    args = parser.parse_args()
    from frozenmm.engine.check_data import check_data, table
    surveys = check_data(args.target, full=args.full, sheet=args.sheet, options=args.cfg_options)
    print(table(surveys))
    if any(survey.errors for survey in surveys):
        sys.exit(2)


if __name__ == '__main__':
    run_tool(main)
