"""What the blocks of a frozen ViT change, and what it costs to leave some out: frozenmm analyse layers PICTURE ...

One table has the mean cosine of the tokens before and after each block; the other leaves out the blocks that change
least, with the error of the last map and the time. `frozenmm.SkippingTower` takes such a list in a config.
"""
from __future__ import annotations

import argparse

from frozenmm_command import options
from frozenmm_command.parsing import Parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    layers = parser.add_subparsers(dest='action', required=True, parser_class=Parser).add_parser(
        'layers', help='cosine between layers, and speed against error without some blocks')
    layers.add_argument('pictures', nargs='+', help='pictures, folders or videos')
    layers.add_argument('--tower', required=True, metavar='FAMILY:MODEL',
                        help='clip, dinov2, dinov3, sam or timm, and a model of that family: dinov2:dinov2_vits14')
    layers.add_argument('--weights', help="file of weights, or 'random'; default: the published ones")
    layers.add_argument('--skip', nargs='+', type=int, metavar='K',
                        help='numbers of blocks to leave out; default: 1 to half of them')
    layers.add_argument('--limit', type=int, default=8, help='pictures that are looked at; default: 8')
    layers.add_argument('--out', help='write the tables to this JSON file too')
    options.add_device(layers)


def run(args: argparse.Namespace) -> None:
    """Do it."""
    import json

    from frozenmm.apis.layer_tables import analyse_layers, layer_text
    from frozenmm.compat.files import write_whole
    tables = analyse_layers(args.tower, args.pictures, weights=args.weights, skip=args.skip, limit=args.limit,
                            device=args.device)
    print(layer_text(tables))
    if args.out:
        write_whole(args.out, json.dumps(tables, indent=1) + '\n')
