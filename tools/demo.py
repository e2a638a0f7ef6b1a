"""A web page to try models on: python tools/demo.py [--models open-vocabulary detection CONFIG ...]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--models', nargs='+', default=[], help='tasks, checkpoints of the zoo, or configs; default: '
                                                                'every task that has a checkpoint')
    parser.add_argument('--device', default='auto',
                        help='cpu, cuda, cuda:1, mps, or auto (default): the best one of this machine')
    parser.add_argument('--port', type=int, help='default: the first free one from 7860 on')
    parser.add_argument('--host', default='127.0.0.1', help='default: this machine only; the page has no log-in')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from frozenmm.compat import require
    require('gradio', 'the web demo')  # before models are loaded
    from frozenmm.demo.offers import load_inferencers
    from frozenmm.demo.page import serve
    serve(load_inferencers(args.models, device=args.device), host=args.host, port=args.port)


if __name__ == '__main__':
    run_tool(main)
