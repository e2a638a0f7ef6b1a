"""What every command-line tool does with errors: one sentence for those of the user, a traceback for ours."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable

USER_ERRORS = (ValueError, TypeError, OSError, KeyError, ImportError)


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool; an error that input can cause becomes one line on stderr and exit code 2.

    Set `FROZENMM_TRACEBACK=1` to see where it arose.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write('\ninterrupted; the same command goes on where it stopped\n')
        sys.exit(130)
    except USER_ERRORS as error:
        if os.environ.get('FROZENMM_TRACEBACK'):
            raise
        # a KeyError shows its text in quotes; the bare argument reads better
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.stderr.write(f'error: {text}\n(FROZENMM_TRACEBACK=1 shows where)\n')
        sys.exit(2)
