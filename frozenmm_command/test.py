"""Test a model: frozenmm test CONFIG [CHECKPOINT] [--data NAME] [--show-dir FOLDER] [--out FILE.json]."""
from __future__ import annotations

import argparse
import os

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    options.add_config(parser)
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file; left out for a model without trained part')
    parser.add_argument('--data', help='test an open-vocabulary model on another data set, with its vocabulary: a name '
                        'in configs/_base_/datasets (ade20k_150, pascal_voc_20, ...) or a file')
    parser.add_argument('--work-dir', help='folder of logs; default: work_dirs/<name of the config>')
    parser.add_argument('--show-dir', help='draw predictions beside ground truth into this folder')
    parser.add_argument('--show-count', type=int, default=16, help='number of images to draw')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, as the config describes it')
    options.add_cfg_options(parser)
    options.add_trust(parser)
    options.add_device(parser)
    options.add_launcher(parser)
    options.add_local_rank(parser)


def run(args: argparse.Namespace) -> None:
    """Do it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from frozenmm.engine.launch import evaluate, load_config, use_tta
    cfg = load_config(options.config_file(args.config), args.cfg_options, work_dir=args.work_dir,
                      launcher=args.launcher, data=args.data, device=args.device)
    if args.tta:
        use_tta(cfg)
    evaluate(cfg, args.checkpoint, show_dir=args.show_dir, show_count=args.show_count, out=args.out,
             trusted=args.trust)
