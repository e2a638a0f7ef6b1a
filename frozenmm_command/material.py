"""Write the photograph and the clip that the documents work on: frozenmm material [FOLDER].

`photo.jpg` is a cat from scikit-image; `frames/` and `frames_depth.npz` are a generated room.
"""
from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('folder', nargs='?', default='.', help='default: here')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.demo.material import write_material
    for path in write_material(args.folder):
        print(path)
