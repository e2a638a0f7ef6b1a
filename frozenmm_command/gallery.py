"""One HTML page of a folder of results: frozenmm gallery RESULTS [--title TEXT]."""
from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('folder', help='what `frozenmm infer --out` or `frozenmm test --show-dir` wrote')
    parser.add_argument('--title', default='Predictions')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.visualization.gallery import write_gallery
    print(write_gallery(args.folder, title=args.title))
