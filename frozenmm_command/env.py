"""What this installation has: versions, which implementation every operator uses and why, and what is missing."""
from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report to FILE too')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.env import show
    show(args.json)
