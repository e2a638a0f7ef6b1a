"""What every command does with errors: one sentence for those of the user, a traceback for ours."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from frozenmm.errors import UserError
from frozenmm.version import PROJECT_URL


def run_tool(main: Callable[[], None], *, interrupted: str = 'interrupted') -> None:
    """Run a command and end the process as its outcome asks for.

    A `UserError` becomes its sentence on stderr and exit code 2 (`FROZENMM_TRACEBACK=1` shows where it arose); any
    other exception keeps its traceback, says where to report it and ends with exit code 1.

    Args:
        main: the command.
        interrupted: what Ctrl-C says; the words of the `KeyboardInterrupt` go first, where it says how to go on.
    """
    try:
        with interruptions(lambda: ''):
            if os.environ.get('FROZENMM_OPS'):  # refused before hours are spent; else the operators need not be there
                import_module('frozenmm.ops.loader').mode()
            main()
    except KeyboardInterrupt as stop:
        sys.stderr.write(f'\n{str(stop) or interrupted}\n')
        sys.exit(130)
    except UserError as error:
        if os.environ.get('FROZENMM_TRACEBACK'):
            raise
        sys.stderr.write(f'error: {error}\n(FROZENMM_TRACEBACK=1 shows where)\n')
        sys.exit(2)
    except BrokenPipeError:
        raise  # whoever read the output has seen enough; `frozenmm_command.main` ends the process
    except Exception:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stderr.write('\nThis is a fault of frozenmm or of code that it was asked to run, not of your input. Please '
                         'report it with the lines above and the output of `python -m frozenmm.env`: '
                         f'{PROJECT_URL}/issues\n')
        sys.exit(1)


@contextmanager
def interruptions(words: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C stays one, and says how to go on, also where other code catches it and raises an error of its own.

    mmengine's formatting of a config does: yapf in the middle of a checkpoint becomes a `SyntaxError`.

    Args:
        words: the sentence, for the one that the inner code has said; empty keeps that.

    Raises:
        KeyboardInterrupt: with the sentence.
    """
    try:
        yield
    except BaseException as error:
        cause: BaseException | None = error
        while not (cause is None or isinstance(cause, KeyboardInterrupt)):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise KeyboardInterrupt(words() or str(cause)) from None
