"""JSON files with one entry a line, which wait on the disk while a run goes on."""
from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frozenmm.compat.files import whole_file

_KEY = re.compile(r'\{"image_id": ("(?:[^"\\]|\\.)*"|-?\d+)')


class EntryFile:
    """Entries of pictures, in the order in which they are added; the file appears, whole, when it is finished.

    Args:
        path: the file, whose folder is there.
        between: what separates entries.
        after: what ends the file.
    """

    def __init__(self, path: Path, *, between: str = '\n', after: str = '\n') -> None:
        self.path = path
        self._between, self._after = between, after
        self._spool = tempfile.TemporaryFile('w+', encoding='utf-8', dir=path.parent)

    def add(self, entry: dict[str, Any]) -> None:
        """Add an entry, whose first key is `image_id`."""
        self._spool.write(f'{json.dumps(entry)}\n')

    def finish(self, before: str = '', *, without: set[int | str] | None = None) -> None:
        """Write the file.

        Args:
            before: what begins the file.
            without: keep the entries that the file has so far, but for those of these pictures; None keeps none.
        """
        self._spool.seek(0)
        with whole_file(self.path) as part, part.open('w', encoding='utf-8') as file:
            file.write(before)
            for number, line in enumerate(self._lines(without)):
                file.write(f'{self._between if number else ""}{line}')
            file.write(self._after)

    def close(self) -> None:
        """Give up what is not finished."""
        self._spool.close()

    def _lines(self, without: set[int | str] | None) -> Iterator[str]:
        if without is not None and self.path.is_file():
            with self.path.open(encoding='utf-8') as earlier:
                for line in earlier:
                    key = _KEY.match(line)
                    if key and json.loads(key[1]) not in without:
                        yield _entry(line)
        for line in self._spool:
            yield line.rstrip('\n')


def stored_entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a finished file, one at a time."""
    with path.open(encoding='utf-8') as file:
        for line in file:
            if _KEY.match(line):
                yield json.loads(_entry(line))


def _entry(line: str) -> str:
    return line.rstrip('\n').rstrip(',')
