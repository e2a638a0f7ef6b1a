"""Bring a public data set into the layout that the configs read.

    frozenmm prepare --list                       # data sets, archives, sizes, terms
    frozenmm prepare ade20k                       # fetch, check, unpack, convert the validation set
    frozenmm prepare coco --splits train val      # also what training needs
    frozenmm prepare cityscapes --archives ~/Downloads

Interrupt and repeat as you like. Archives that need a registration are named with size and origin; put them into the
folder that the message says and run the same command again.
"""
from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('name', nargs='?', help='data set')
    parser.add_argument('--root', default='data', help='folder of all data; default: data')
    parser.add_argument('--splits', nargs='+', default=['val'], help='val (default), train')
    parser.add_argument('--archives', help='folder of downloaded archives; default: <root>/downloads')
    parser.add_argument('--no-download', action='store_true', help='ask the network for nothing')
    parser.add_argument('--list', action='store_true', help='list the data sets and stop')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.datasets.prepare import listing, prepare
    from frozenmm.errors import UserError
    if args.list:
        print(listing())
        return
    if args.name is None:
        raise UserError('name a data set, or use --list')
    folder = prepare(args.name, args.root, splits=args.splits, download=not args.no_download, archives=args.archives)
    print(f'{folder} is ready')
