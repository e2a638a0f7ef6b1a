"""Models, checkpoints and weights."""
from __future__ import annotations

import argparse
import sys

from frozenmm_command.parsing import Parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    actions = parser.add_subparsers(dest='action', required=True, parser_class=Parser)
    listing = actions.add_parser('list', help='what there is')
    listing.add_argument('part', nargs='?', default='all', choices=('all', 'checkpoints', 'models', 'towers'))
    actions.add_parser('resolve', help='file and config of a checkpoint').add_argument('name')
    actions.add_parser('show', help='results, weights and licences of a model').add_argument('name')
    actions.add_parser('fetch', help='official weights of a frozen network').add_argument('name')
    actions.add_parser('verify', help='check hashes and headers of the shipped checkpoints').add_argument(
        'names', nargs='*', default=[])


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.zoo.command import run as run_action
    sys.exit(run_action(args))
