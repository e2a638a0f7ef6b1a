"""Paint the generated rooms (images and exact depth) into a folder: python tools/make_rooms.py [FOLDER]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.demo.rooms import RoomImages, write_rooms
from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    default = RoomImages()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', nargs='?', default='data/rooms')
    parser.add_argument('--train', type=int, default=default.train, help='number of training images')
    parser.add_argument('--val', type=int, default=default.val,
                        help='number of test images, with photographs on them that training never shows')
    parser.add_argument('--size', type=int, nargs=2, default=default.size, metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--seed', type=int, default=default.seed)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    write_rooms(args.folder, RoomImages(train=args.train, val=args.val, size=tuple(args.size), seed=args.seed))


if __name__ == '__main__':
    run_tool(main)
