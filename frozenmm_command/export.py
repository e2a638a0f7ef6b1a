"""Write the model of a training run into one file to hand on: frozenmm export RUN model.safetensors.

It holds the trained part, no optimizer, and in its header the config, the class names and names and fingerprints of the
frozen networks: `frozenmm infer IMAGES --weights model.safetensors` takes it as it is.
"""
from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('run', help='folder that `frozenmm train` wrote to')
    parser.add_argument('out', help='the .safetensors file to write')
    parser.add_argument('--checkpoint', help='of the run; default: the best of its validations, else the last')
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.apis import export_run
    path = export_run(args.run, args.out, checkpoint=args.checkpoint, trusted=args.trust)
    print(f'{path} ({path.stat().st_size / 1e6:.2f} MB); use it with frozenmm infer IMAGES --weights {path}')
