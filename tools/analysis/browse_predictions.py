"""One HTML page of a folder of results: python tools/analysis/browse_predictions.py RESULTS [--title TEXT]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from frozenmm.engine.command_line import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', help='what tools/infer.py --out or tools/test.py --show-dir wrote')
    parser.add_argument('--title', default='Predictions')
    args = parser.parse_args()
    from frozenmm.visualization.gallery import write_gallery
    print(write_gallery(args.folder, title=args.title))


if __name__ == '__main__':
    run_tool(main)
