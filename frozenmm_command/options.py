"""Options that several commands share."""
from __future__ import annotations

import argparse
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """`CONFIG`."""
    parser.add_argument('config', help='config file, or the name of one of ours')


def config_file(config: str) -> str:
    """The file that `CONFIG` names; what is neither is left as it is, for the error of the reader."""
    from frozenmm.zoo import config_files
    return config if Path(config).is_file() else str(config_files().get(config.removesuffix('.py'), config))


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device`."""
    parser.add_argument('--device', default='auto',
                        help='cpu, cuda, cuda:1, mps, or auto (default): the best one of this machine')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """`--cfg-options`."""
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='change values of the config; a key that it lacks needs the prefix +')


def add_trust(parser: argparse.ArgumentParser) -> None:
    """`--trust`."""
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """`--launcher`."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='what started the processes of a distributed run; default: none')


def add_local_rank(parser: argparse.ArgumentParser) -> None:
    """`--local_rank`, which old launchers pass."""
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')


def given(args: argparse.Namespace, *names: str) -> dict:
    """Those of these arguments that were given; the called function has the defaults."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}
