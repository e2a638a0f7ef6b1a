"""Look at a reconstruction in the browser: python tools/view_recon.py DIR [--save FILE.html].

DIR is the folder that tools/recon.py wrote.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool
from frozenmm.reconstruction.results_folder import open_results
from frozenmm.reconstruction.viewer import DEFAULT_PORT, Viewer, view


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('folder', metavar='DIR', help='the --out folder of tools/recon.py')
    parser.add_argument('--save', metavar='FILE.html', help='write one self-contained page instead of serving')
    parser.add_argument('--port', type=int, default=DEFAULT_PORT, help='default: %(default)s, or the next free one')
    parser.add_argument('--host', default='127.0.0.1', help='default: this machine only; the page has no log-in')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    results = open_results(args.folder)
    if args.save is None:
        view(results, host=args.host, port=args.port)
        return
    viewer = Viewer(results, port=args.port)
    print(viewer.save(args.save))
    viewer.close()


if __name__ == '__main__':
    run_tool(main)
