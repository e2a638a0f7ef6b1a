"""Files that are written as a whole or not at all."""
from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary name to write under, renamed to `path` at the end, so that nobody ever sees half of the file.

    Args:
        path: the file; its folder is made if it is missing, an older file is replaced. After an error in the block the
            older file stands as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # hidden, one per writer, and with the suffix of the file, from which libraries take the format
    part = path.with_name(f'.{os.getpid()}-{threading.get_ident()}.part.{path.name}')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a file with this content (text as UTF-8) in one step; see `whole_file`."""
    with whole_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
