"""Table of parameters, multiply-adds and checkpoint bytes: python tools/analysis/frozen_and_trained.py [CONFIG ...]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', help='config files or names of ours; default: all of ours')
    parser.add_argument('--size', nargs=2, type=int, default=(480, 640), metavar=('HEIGHT', 'WIDTH'),
                        help='of the image, before the config resizes it')
    parser.add_argument('--random', action='store_true', help='random weights in the towers; nothing is fetched')
    parser.add_argument('--out', type=Path, help='write the table to this file too')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from frozenmm.apis.model_costs import costs_table, model_costs
    from frozenmm.apis.model_sources import read_config
    from frozenmm.compat.files import write_whole
    from frozenmm.zoo import config_files
    rows = {}
    for number, name in enumerate(args.configs or config_files(), 1):
        print(f'{number}: {name}', file=sys.stderr, flush=True)
        try:
            rows[Path(name).stem] = model_costs(read_config(name), size=tuple(args.size), random_towers=args.random)
        except (FileNotFoundError, ValueError, KeyError) as error:
            if args.configs:
                raise
            rows[Path(name).stem] = str(error).split(';')[0].replace('|', '/')
    table = costs_table(rows)
    print(table)
    if args.out is not None:
        write_whole(args.out, f'{table}\n'.encode())


if __name__ == '__main__':
    run_tool(main)
