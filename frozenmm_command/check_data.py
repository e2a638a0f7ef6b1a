"""Look at data before training on it: frozenmm check-data CONFIG|FOLDER [--full] [--sheet OUT.png].

All annotations are read, and the pixels of a sample. Counts and findings are listed, with what to do; the exit code is
2 where something would be learnt wrongly or not at all.
"""
from __future__ import annotations

import argparse
import sys

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('target', help='a config, or a folder of data')
    parser.add_argument('--full', action='store_true', help='look at the pixels of all pictures, not of a sample')
    parser.add_argument('--sheet', metavar='OUT', help='write a PNG of samples with their targets drawn')
    options.add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.engine.check_data import check_data, table
    from frozenmm.engine.terminal import without_noise
    with without_noise():
        surveys = check_data(args.target, full=args.full, sheet=args.sheet, options=args.cfg_options)
    print(table(surveys))
    if any(survey.errors for survey in surveys):
        sys.exit(2)
