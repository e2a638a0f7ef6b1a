"""Paint the generated scenes into a folder in COCO layout: python tools/make_scenes.py [FOLDER]."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.demo.scenes import SceneSettings, write_scenes
from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    default = SceneSettings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', nargs='?', default='data/scenes')
    parser.add_argument('--train', type=int, default=default.train, help='number of training images')
    parser.add_argument('--val', type=int, default=default.val,
                        help='number of test images, on grounds and under lights that training never shows')
    parser.add_argument('--size', type=int, default=default.size, help='side in pixels')
    parser.add_argument('--objects', type=int, nargs=2, default=default.objects, metavar=('LEAST', 'MOST'))
    parser.add_argument('--seed', type=int, default=default.seed)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    write_scenes(args.folder, SceneSettings(train=args.train, val=args.val, size=args.size,
                                            objects=tuple(args.objects), seed=args.seed))


if __name__ == '__main__':
    run_tool(main)
