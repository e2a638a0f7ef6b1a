"""Fill the feature cache of a config, so that training reads frozen features instead of computing them.

    frozenmm cache CONFIG             # fill; interrupt and repeat as you like
    frozenmm cache CONFIG --dry-run   # how large, how long; writes nothing
    frozenmm cache CONFIG --verify    # read everything, compare checksums; exit code 1 if damaged
    frozenmm cache CONFIG --prune     # fill, then delete what is damaged or not needed by CONFIG

The config names the folder: tower=dict(type='frozenmm.CachedTower', folder='cache/...', tower=dict(...)).
"""
from __future__ import annotations

import argparse
import os
import shutil
import sys

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    options.add_config(parser)
    parser.add_argument('--splits', nargs='+', default=['train', 'val'], help='data loaders; default: train val')
    action = parser.add_mutually_exclusive_group()
    action.add_argument('--dry-run', action='store_true', help='estimate size and time only')
    action.add_argument('--verify', action='store_true', help='check what is stored, compute nothing')
    action.add_argument('--prune', action='store_true', help='also delete what is damaged or not needed')
    options.add_cfg_options(parser)
    options.add_launcher(parser)


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from mmengine.dist import init_dist

    from frozenmm.engine.cache_filling import estimate, fill, verify
    from frozenmm.engine.launch import load_config
    cfg = load_config(options.config_file(args.config), args.cfg_options, launcher=args.launcher)
    if args.launcher != 'none':
        os.environ.setdefault('LOCAL_RANK', '0')
        init_dist(args.launcher, **cfg.get('env_cfg', {}).get('dist_cfg', {}))
    if args.dry_run:
        print(f'{estimate(cfg, args.splits)}, {shutil.disk_usage(".").free / 1e9:.1f} GB free here')
        return
    if args.verify:
        lines, problems = verify(cfg)
        print('\n'.join([*lines, *(problems or ['all checksums match'])]))
        sys.exit(1 if problems else 0)
    print('\n'.join(fill(cfg, args.splits, prune=args.prune)))
