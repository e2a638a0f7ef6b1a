"""Files that are written as a whole or not at all."""
from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

from frozenmm.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a disk, a quota and a limit of file sizes that have no room."""
_HOST = re.sub(r'[^\w.]', '_', platform.node()) or 'host'  # folders are shared between machines
_cleaned: set[Path] = set()


class FullDisk(UserError, OSError):
    """There is no room for a file; what stood under its name stands."""


@contextmanager
def whole_file(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary name to write under, renamed to `path` at the end, so that nobody ever sees half of the file.

    Args:
        path: the file; its folder is made if it is missing, an older file is replaced. After an error in the block the
            older file stands as it was.
        durable: wait until the content and then the name are on the disk, so that a machine that stops cannot leave an
            empty file under the name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _cleaned:
        remove_abandoned_parts(path.parent)
        _cleaned.add(path.parent)
    # hidden, one per writer, and with the suffix of the file, from which libraries take the format
    part = path.with_name(f'.{_HOST}-{os.getpid()}-{threading.get_ident()}.part.{path.name}')
    try:
        part.touch()
        mode = part.stat().st_mode  # as the user's umask asks for; safetensors makes files of the user alone
        yield part
        part.chmod(mode)
        if durable:
            _sync(part)
        os.replace(part, path)
        if durable:
            _sync(path.parent)
    except UserError:
        raise
    except Exception as error:
        if (code := _full(error)) is None:
            raise
        full = FullDisk(f'{path.absolute()} cannot be written: {os.strerror(code).lower()}; make room, and run the '
                        'same command again')
        full.errno = code
        raise full from error
    finally:
        part.unlink(missing_ok=True)


def _full(error: Exception) -> int | None:
    """The number of the error if a disk, quota or limit of file sizes is full, whoever says so in which words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in FULL else None
    # libraries in C++ and Rust give the number, or its words, in their sentence
    return next((code for code in FULL if os.strerror(code) in str(error)), None)


@contextmanager
def locked(path: Path, *, busy: str, wait: bool = True) -> Iterator[None]:
    """Around what one process at a time may do; the lock ends with the process, whatever ends that.

    Args:
        path: the lock's file, which stays.
        busy: the sentence for a lock that another process holds.
        wait: log the sentence and wait; else raise it.

    Raises:
        UserError: the lock is held, and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise UserError(busy) from None
            print_log(busy, logger='current')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_abandoned_parts(folder: Path) -> None:
    """Remove what `whole_file` left in a folder for processes of this machine that were killed."""
    for path in folder.glob(f'.{_HOST}-*.part.*'):
        process = path.name.removeprefix(f'.{_HOST}-').partition('-')[0]
        if process.isdecimal() and not _is_alive(int(process)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_whole(path: str | Path, content: bytes | str, *, durable: bool = False) -> None:
    """Write a file with this content (text as UTF-8) in one step; see `whole_file`."""
    with whole_file(path, durable=durable) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, put on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
