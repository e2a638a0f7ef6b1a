"""The console command `frozenmm`, and the functions behind `tools/*.py`.

It stands beside the package `frozenmm`, not in it, because importing anything from there loads torch and mmengine,
which takes seconds: here a command line is read first, so `--help` and a misspelt option answer at once. Each command
is a module of this package: its docstring is shown by `--help`, `add_arguments(parser)` describes its arguments and
`run(args)` does the work, with its imports of frozenmm inside.
"""
from __future__ import annotations

import os
import runpy
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from frozenmm_command.parsing import nearest, run_reported

COMMANDS = {
    'train': 'train a model',
    'test': 'test a model and draw predictions beside the truth',
    'infer': 'segment, detect or measure depth on images, folders and videos',
    'memory': 'classes from examples: add, list, remove, export',
    'recon': 'depth, camera poses and a mesh from a video',
    'view': 'look at a reconstruction in the browser',
    'score': 'compare a reconstruction with measured depth and poses',
    'prepare': 'bring a public data set into the layout that the configs read',
    'check-data': 'look at the data of a config or folder before training',
    'cache': 'store frozen features, so that training reads them',
    'sam-masks': 'store SAM masks of a data set, for FrozenSeg',
    'export': 'write the model of a training run into one file to hand on',
    'convert': 'convert an official checkpoint to ours',
    'zoo': 'models, checkpoints and weights',
    'env': 'what this installation has and what it lacks',
    'demo': 'a web page to try models on',
    'quickstart': 'train small detectors on painted images and compare them',
    'material': 'the photograph and the clip that the documents work on',
    'scenes': 'paint the scenes of the quickstart',
    'rooms': 'paint rooms with exact depth',
    'browse': 'draw training images as a config gives them',
    'gallery': 'one HTML page of a folder of results',
    'curves': 'plot scalars of trainings',
    'analyse': 'what the blocks of a frozen tower change, and which can be left out',
    'costs': 'parameters, multiply-adds and checkpoint bytes of configs',
}
"""Name of each command and what it does; its module has the name with `_` for `-`."""

_NOBODY_READS = 141
"""Exit code of a process that the signal of a closed pipe ends."""
_GO_ON = ('cache', 'prepare', 'recon', 'rooms', 'sam-masks', 'scenes')
"""Commands that keep what they have done when they are interrupted."""


def main(command: str | None = None, arguments: list[str] | None = None) -> None:
    """Run a command line; ends the process where something went wrong, with exit code 2 for mistakes of the user.

    Args:
        command: name of a command; by default the first of the arguments.
        arguments: what follows the name; by default those of this process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    with _while_somebody_reads():
        if command is None:
            command = _chosen(given)
            given = given[1:]
        module = import_module(f'{__name__}.{command.replace("-", "_")}')
        run_reported(f'frozenmm {command}', module.__doc__ or '', module.add_arguments, module.run, given,
                     interrupted='interrupted; the same command goes on where it stopped' if command in _GO_ON
                     else 'interrupted')


@contextmanager
def _while_somebody_reads() -> Iterator[None]:
    """Ends the process without a word where the reader of its output (`head`, a pager) has seen enough."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if _is_read():
            raise  # a connection of the command's own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter flushes at its end
        sys.exit(_NOBODY_READS)


def _is_read() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))


def _chosen(given: list[str]) -> str:
    """The command that the first argument names; ends the process with help, version or the nearest names."""
    first = given[0] if given else '--help'
    if first in COMMANDS:
        return first
    if first in ('-h', '--help', 'help'):
        print(_help())
        sys.exit(0)
    if first == '--version':
        print(f'frozenmm {_version()}')
        sys.exit(0)
    sys.stderr.write(f'error: there is no command {first!r}{nearest(first, COMMANDS)}; `frozenmm --help` lists all\n')
    sys.exit(2)


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = '\n'.join(f'  {name:{width}}  {what}' for name, what in COMMANDS.items())
    return ('usage: frozenmm COMMAND ...\n\nFrozen foundation models in OpenMMLab pipelines for dense vision.\n\n'
            f'commands:\n{commands}\n\n'
            '`frozenmm COMMAND --help` shows the arguments of a command, `frozenmm --version` the version.')


def _version() -> str:
    """Of the package beside this one, without importing it."""
    spec = find_spec('frozenmm')
    if spec is None or spec.origin is None:
        return 'is not installed'
    return runpy.run_path(str(Path(spec.origin).with_name('version.py')))['__version__']
