"""Units of a long job that several processes, also of several machines, share through a folder."""
from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from frozenmm.errors import UserError

_SECONDS_BETWEEN_LOOKS = 0.2


class SharedWork:
    """Hands out the units of a job, each to one process; a unit whose process dies goes to another one.

    A process holds the lock of its unit's file while it works, and the system frees it however the process ends. Units
    that are done are noted as long as any process of the folder is alive: the first one of a new start forgets them, so
    that pictures that have changed since are looked at again (what is in the cache is not computed again).

    Args:
        folder: of the notes; on a file system with locks (flock) that all processes see.
        wait: called while other processes work on the last units; by default sleeps.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path, wait: Callable[[], object] = lambda: time.sleep(_SECONDS_BETWEEN_LOOKS)) -> None:
        self.folder = folder
        self.wait = wait
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._alive: IO = (folder / 'alive').open('w')
        except OSError as error:
            raise UserError(f'the notes of shared work cannot be written to {folder.absolute()} ({error.strerror}); '
                            'give the cache a folder that this process may write to') from None
        if _locked(self._alive, fcntl.LOCK_EX):
            for path in folder.glob('*.unit'):
                with suppress(FileNotFoundError):
                    path.unlink()
        fcntl.flock(self._alive, fcntl.LOCK_SH)

    def close(self) -> None:
        """Leave the work to the others."""
        self._alive.close()

    def units(self, job: str, total: int, size: int) -> Iterator[range]:
        """Ranges of the items that this process must do; ends when all units are done, by whomever.

        A unit counts as done when the next one is asked for, so what it made must be on disk by then.

        Args:
            job: what tells this job's items from those of others in the folder.
            total: items.
            size: items of a unit.
        """
        name = hashlib.sha256(f'{job}/{total}/{size}'.encode()).hexdigest()[:16]
        left = [range(start, min(start + size, total)) for start in range(0, total, size)]
        while left:
            later = []
            for unit in left:
                with (self.folder / f'{name}-{unit.start}.unit').open('a+') as note:
                    if not _locked(note, fcntl.LOCK_EX):
                        later.append(unit)
                    elif not os.fstat(note.fileno()).st_size:
                        yield unit
                        note.write('done\n')
            if later == left:
                self.wait()
            left = later


def _locked(file: IO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
