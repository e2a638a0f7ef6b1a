"""A web page to try models on: frozenmm demo [--models open-vocabulary detection CONFIG ...]."""
from __future__ import annotations

import argparse

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('--models', nargs='+', default=[], help='tasks, checkpoints of the zoo, or configs; default: '
                                                                'every task that has a checkpoint')
    options.add_device(parser)
    parser.add_argument('--port', type=int, help='default: the first free one from 7860 on')
    parser.add_argument('--host', default='127.0.0.1', help='default: this machine only; the page has no log-in')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.compat import require
    require('gradio', 'the web demo')  # before models are loaded
    from frozenmm.demo.offers import load_inferencers
    from frozenmm.demo.page import serve
    serve(load_inferencers(args.models, device=args.device), host=args.host, port=args.port)
