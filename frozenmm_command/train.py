"""Train a model: frozenmm train CONFIG [--resume | --overwrite] [--amp] [--cfg-options key=value ...]."""
from __future__ import annotations

import argparse
import os

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    options.add_config(parser)
    parser.add_argument('--work-dir', help='folder of logs and checkpoints; default: work_dirs/<name of the config>')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from the latest checkpoint of the work folder, or from this one')
    parser.add_argument('--overwrite', action='store_true', help='replace a run that the work folder holds already')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (bfloat16)')
    options.add_cfg_options(parser)
    options.add_trust(parser)
    options.add_device(parser)
    options.add_launcher(parser)
    options.add_local_rank(parser)


def run(args: argparse.Namespace) -> None:
    """Do it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from frozenmm.engine.launch import load_config, resume_from, train, use_amp
    cfg = load_config(options.config_file(args.config), args.cfg_options, work_dir=args.work_dir,
                      launcher=args.launcher, device=args.device)
    if args.amp:
        use_amp(cfg)
    if args.resume:
        resume_from(cfg, args.resume)
    train(cfg, overwrite=args.overwrite, trusted=args.trust)
