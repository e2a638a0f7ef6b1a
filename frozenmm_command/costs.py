"""Table of parameters, multiply-adds and checkpoint bytes: frozenmm costs [CONFIG ...]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('configs', nargs='*', help='config files or names of ours; default: all of ours')
    parser.add_argument('--size', nargs=2, type=int, default=(480, 640), metavar=('HEIGHT', 'WIDTH'),
                        help='of the image, before the config resizes it')
    parser.add_argument('--random', action='store_true', help='random weights in the towers; nothing is fetched')
    parser.add_argument('--out', type=Path, help='write the table to this file too')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.apis.model_costs import Costs, costs_table, model_costs
    from frozenmm.apis.model_sources import read_config
    from frozenmm.compat.files import write_whole
    from frozenmm.zoo import config_files
    rows: dict[str, Costs | str] = {}
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
