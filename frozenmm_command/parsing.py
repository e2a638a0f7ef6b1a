"""Reading the arguments of a command, with the nearest name for a misspelt one, and running it."""
from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

AddArguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], None]


def nearest(given: str, names: Iterable[str]) -> str:
    """A remark on the names that `given` may have meant; empty if none is near."""
    found = difflib.get_close_matches(given, list(names), n=2, cutoff=0.6)
    return f' (nearest: {", ".join(found)})' if found else ''


class Parser(argparse.ArgumentParser):
    """An argument parser that shows the docstring as it stands, and names the nearest option or choice."""

    def __init__(self, *, prog: str, description: str | None = None, add_help: bool = True) -> None:
        super().__init__(prog=prog, description=description, add_help=add_help,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self._given: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """See argparse; remembers what was given, for `error`."""
        self._given = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """See argparse; adds the nearest names."""
        choice = re.match(r"argument .*: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice:
            message += nearest(choice[1], re.findall(r"[^\s',]+", choice[2]))
        known = list(self._option_string_actions)
        options = [option.partition('=')[0] for option in self._given if option.startswith('--') and option != '--']
        for option in options:
            if not any(name.startswith(option) for name in known):
                message += f'; there is no option {option}{nearest(option, known)}'
        super().error(message)


def run_reported(prog: str, description: str, add_arguments: AddArguments, run: Run,
                 arguments: Sequence[str] | None = None, *, interrupted: str = 'interrupted') -> None:
    """Parse, then run with frozenmm's messages and exit codes (`frozenmm.engine.command_line.run_tool`).

    Args:
        prog: how the command is called.
        description: text of `--help`.
        add_arguments: describes the arguments; imports nothing heavy.
        run: does the work.
        arguments: of the command line; by default those of this process.
        interrupted: what Ctrl-C says where the work itself says nothing.
    """
    parser = Parser(prog=prog, description=description.strip())
    add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        from frozenmm.engine.command_line import run_tool
    except ImportError as error:
        if type(error).__name__ != 'MissingPackage':  # its module cannot be imported where mmengine is missing
            raise
        sys.stderr.write(f'error: {error}\n')
        sys.exit(2)
    run_tool(lambda: run(args), interrupted=interrupted)
