"""Text vectors on disk, a row for each word, so that a vocabulary with one new word costs one word.

One SQLite file: it is locked between processes, a row is there as a whole or not at all, and it is bounded.
"""
from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

_TABLE = ('CREATE TABLE IF NOT EXISTS words (kind TEXT, word TEXT, vector BLOB, digest BLOB, day INTEGER, '
          'PRIMARY KEY (kind, word))')
_AT_ONCE = 500
_SECONDS_TO_WAIT = 60.0
_SECONDS_OF_A_DAY = 86400


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """An SQLite file, closed at the end; what the block changed is there as a whole or, after an error, not at all."""
    with closing(sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)) as database, database:
        yield database


class WordStore:
    """Vectors of words, by what made them.

    What cannot be read or written is said in a warning and never an error: everything here can be computed again.

    Args:
        path: the file; made with its folder when it is first written to.
        largest: bytes; what was not used for longest goes when the file is larger.
    """

    def __init__(self, path: Path, *, largest: int = 1 << 29) -> None:
        self.path, self.largest = path, largest

    def read(self, kind: str, words: Sequence[str], channels: int) -> dict[str, Tensor]:
        """The vectors (C,) float32 of those words that are there and whole.

        Args:
            kind: tower and templates, as a digest.
            words: without repetition.
            channels: C.
        """
        if not self.path.is_file():
            return {}
        found: dict[str, Tensor] = {}
        damaged = 0
        today = int(time.time() // _SECONDS_OF_A_DAY)
        try:
            with opened(self.path) as database:
                for part in _parts(words):
                    marks = ','.join('?' * len(part))
                    rows = database.execute('SELECT word, vector, digest, day FROM words WHERE kind = ? AND word IN '
                                            f'({marks})', (kind, *part)).fetchall()
                    whole = [row for row in rows if _is_whole(row[1], row[2], channels)]
                    damaged += len(rows) - len(whole)
                    found.update((word, torch.from_numpy(np.frombuffer(vector, np.float32).copy()))
                                 for word, vector, _, _ in whole)
                    old = [(today, kind, word) for word, _, _, day in whole if day != today]
                    with suppress(sqlite3.OperationalError):  # somebody else's store, only to be read
                        database.executemany('UPDATE words SET day = ? WHERE kind = ? AND word = ?', old)
        except sqlite3.OperationalError as error:  # locked for long; what was read is good
            _warn(f'{self.path} cannot be used ({error})')
        except sqlite3.DatabaseError as error:
            _warn(f'{self.path} is damaged ({error}); the words in it are encoded anew')
            self.path.unlink(missing_ok=True)
            return {}
        if damaged:
            _warn(f'{self.path} holds {damaged} damaged text vectors; these words are encoded anew')
        return found

    def write(self, kind: str, vectors: Mapping[str, Tensor]) -> None:
        """Add vectors (C,) float32 of words, and make room where the file is too large."""
        day = int(time.time() // _SECONDS_OF_A_DAY)
        rows = [(kind, word, content, hashlib.sha256(content).digest(), day) for word, content in (
            (word, vector.cpu().numpy().astype(np.float32).tobytes()) for word, vector in vectors.items())]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with opened(self.path) as database:
                database.execute(_TABLE)
                database.executemany('INSERT OR REPLACE INTO words VALUES (?, ?, ?, ?, ?)', rows)
            self._make_room()
        except (OSError, sqlite3.Error) as error:
            _warn(f'text embeddings cannot be stored in {self.path} ({error}), so they will be computed again next '
                  'time; set FROZENMM_HOME to a folder that can be written')

    def _make_room(self) -> None:
        """Down to half of what is allowed, so that this is rare."""
        if self.path.stat().st_size <= self.largest:
            return
        with opened(self.path) as database:
            size, rows = database.execute('SELECT SUM(LENGTH(vector)), COUNT(*) FROM words').fetchone()
            surplus = rows - int(rows * self.largest / 2 / max(size, 1))
            database.execute('DELETE FROM words WHERE rowid IN (SELECT rowid FROM words ORDER BY day, rowid LIMIT ?)',
                             (max(surplus, 0), ))
        with closing(sqlite3.connect(self.path, timeout=_SECONDS_TO_WAIT)) as database:
            database.execute('VACUUM')


def _parts(words: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(words)
    while part := list(islice(rest, _AT_ONCE)):
        yield part


def _is_whole(vector: object, digest: object, channels: int) -> bool:
    return isinstance(vector, bytes) and len(vector) == 4 * channels and hashlib.sha256(vector).digest() == digest


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
