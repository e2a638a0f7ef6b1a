"""Write a model into one file to hand on, for frozenmm (the default) or for other runtimes.

frozenmm export RUN model.safetensors: the trained part of a run, no optimizer, and in its header the config, the class
names and names and fingerprints of the frozen networks. `frozenmm infer IMAGES --weights model.safetensors` takes it.

frozenmm export RUN model.onnx --to onnx --picture PHOTO: the whole model from a picture to its boxes or masks, for ONNX
Runtime and others; `--to exported_program` writes model.pt2 for torch.export.load, which needs nothing but torch. The
file is written only if it gives on PHOTO what the model gives. In the place of RUN: a config, or a checkpoint of the
zoo.
"""
from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('run', help='folder that `frozenmm train` wrote to; with --to also a config or checkpoint name')
    parser.add_argument('out', help='the file to write')
    parser.add_argument('--to', choices=('onnx', 'exported_program'), help='a format of other runtimes')
    parser.add_argument('--picture', help='with --to: the picture on which both must agree')
    parser.add_argument('--checkpoint', help='of the run; default: the best of its validations, else the last')
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    if args.to is not None:
        _run_traced(args)
        return
    from frozenmm.apis import export_run
    path = export_run(args.run, args.out, checkpoint=args.checkpoint, trusted=args.trust)
    print(f'{path} ({path.stat().st_size / 1e6:.2f} MB); use it with frozenmm infer IMAGES --weights {path}')


def _run_traced(args: argparse.Namespace) -> None:
    from pathlib import Path

    from frozenmm.apis.traced.export import export_model
    from frozenmm.errors import UserError
    if args.picture is None:
        raise UserError(f'--to {args.to} needs --picture PHOTO, on which the exported model is compared with the model')
    folder = Path(args.run).is_dir()
    weights = args.checkpoint or (args.run if folder else None)
    done = export_model(None if folder else args.run, args.out, to=args.to, picture=args.picture, weights=weights,
                        trusted=args.trust)
    print(f'{done.path} ({done.path.stat().st_size / 1e6:.2f} MB); on the picture it differs from the model by at most '
          f'{done.difference:.1e}')
    for key, text in done.contract.items():
        print(f'  {key}: {text}')
