"""Bring a public data set into the layout that the configs read.

    python tools/prepare_data.py --list                       # data sets, archives, sizes, terms
    python tools/prepare_data.py ade20k                       # fetch, check, unpack, convert the validation set
    python tools/prepare_data.py coco --splits train val      # also what training needs
    python tools/prepare_data.py cityscapes --archives ~/Downloads

Interrupt and repeat as you like. Archives that need a registration are named with size and origin; put them into the
folder that the message says and run the same command again.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', nargs='?', help='data set')
    parser.add_argument('--root', default='data', help='folder of all data; default: data')
    parser.add_argument('--splits', nargs='+', default=['val'], help='val (default), train')
    parser.add_argument('--archives', help='folder of downloaded archives; default: <root>/downloads')
    parser.add_argument('--no-download', action='store_true', help='ask the network for nothing')
    parser.add_argument('--list', action='store_true', help='list the data sets and stop')
    args = parser.parse_args()
    if not args.list and args.name is None:
        parser.error('name a data set, or use --list')
    return args


def main() -> None:
    args = parse_args()
    from frozenmm.datasets.prepare import listing, prepare
    if args.list:
        print(listing())
        return
    folder = prepare(args.name, args.root, splits=args.splits, download=not args.no_download, archives=args.archives)
    print(f'{folder} is ready')


if __name__ == '__main__':
    run_tool(main)
