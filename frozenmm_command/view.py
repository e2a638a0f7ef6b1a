"""Look at a reconstruction in the browser: frozenmm view DIR [--save FILE.html].

DIR is the folder that `frozenmm recon` wrote.
"""
from __future__ import annotations

import argparse

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('folder', metavar='DIR', help='the --out folder of `frozenmm recon`')
    parser.add_argument('--save', metavar='FILE.html', help='write one self-contained page instead of serving')
    parser.add_argument('--port', type=int, help='default: 8080, or the next free one')
    parser.add_argument('--host', default='127.0.0.1', help='default: this machine only; the page has no log-in')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.reconstruction.results_folder import open_results
    from frozenmm.reconstruction.viewer import Viewer, view
    results = open_results(args.folder)
    port = options.given(args, 'port')
    if args.save is None:
        view(results, host=args.host, **port)
        return
    viewer = Viewer(results, **port)
    print(viewer.save(args.save))
    viewer.close()
