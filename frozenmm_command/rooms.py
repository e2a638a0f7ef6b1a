"""Paint the generated rooms (images and exact depth) into a folder: frozenmm rooms [FOLDER]."""
from __future__ import annotations

import argparse

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('folder', nargs='?', default='data/rooms')
    parser.add_argument('--train', type=int, help='number of training images')
    parser.add_argument('--val', type=int,
                        help='number of test images, with photographs on them that training never shows')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='in pixels')
    parser.add_argument('--seed', type=int)


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.demo.rooms import RoomImages, write_rooms
    settings = options.given(args, 'train', 'val', 'size', 'seed')
    if args.size is not None:
        settings['size'] = tuple(args.size)
    write_rooms(args.folder, RoomImages(**settings))
