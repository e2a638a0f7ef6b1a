"""Paint the generated scenes into a folder in COCO layout: frozenmm scenes [FOLDER]."""
from __future__ import annotations

import argparse

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('folder', nargs='?', default='data/scenes')
    parser.add_argument('--train', type=int, help='number of training images')
    parser.add_argument('--val', type=int,
                        help='number of test images, on grounds and under lights that training never shows')
    parser.add_argument('--size', type=int, help='side in pixels')
    parser.add_argument('--objects', type=int, nargs=2, metavar=('LEAST', 'MOST'), help='number of objects')
    parser.add_argument('--seed', type=int)


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.demo.scenes import SceneSettings, write_scenes
    settings = options.given(args, 'train', 'val', 'size', 'objects', 'seed')
    if args.objects is not None:
        settings['objects'] = tuple(args.objects)
    write_scenes(args.folder, SceneSettings(**settings))
