"""Test a model: python tools/test.py CONFIG [CHECKPOINT] [--data NAME] [--show-dir FOLDER] [--out FILE.json]."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool
from frozenmm.engine.launch import evaluate, load_config, use_tta


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file; left out for a model without trained part')
    parser.add_argument('--data', help='test an open-vocabulary model on another data set, with its vocabulary: a name '
                        'in configs/_base_/datasets (ade20k_150, pascal_voc_20, ...) or a file')
    parser.add_argument('--work-dir', help='folder of logs; default: work_dirs/<name of the config>')
    parser.add_argument('--show-dir', help='draw predictions beside ground truth into this folder')
    parser.add_argument('--show-count', type=int, default=16, help='number of images to draw')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, as the config describes it')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='change values of the config; a key that it lacks needs the prefix +')
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')
    parser.add_argument('--device', default='auto',
                        help='cpu, cuda, cuda:1, mps, or auto (default): the best one of this machine')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, work_dir=args.work_dir, launcher=args.launcher,
                      data=args.data, device=args.device)
    if args.tta:
        use_tta(cfg)
    evaluate(cfg, args.checkpoint, show_dir=args.show_dir, show_count=args.show_count, out=args.out,
             trusted=args.trust)


if __name__ == '__main__':
    run_tool(main)
