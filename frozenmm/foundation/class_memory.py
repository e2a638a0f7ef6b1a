"""Classes from examples: vectors of regions that a frozen tower saw, on disk, under the names that a user gave them.

One SQLite file, as `word_store` has for text: locked between processes, an example is there as a whole or not at all,
and nothing is ever computed again. It belongs to one tower; another one's vectors mean something else.
"""
from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from frozenmm.compat.files import whole_file
from frozenmm.errors import MissingFile, UnreadableFile, UserError
from frozenmm.foundation.lookup import lookup
from frozenmm.foundation.vocabulary import same_word
from frozenmm.foundation.word_store import opened

_TABLES = ('CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT)',
           'CREATE TABLE IF NOT EXISTS regions (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, vector BLOB, '
           'digest BLOB)',
           'CREATE TABLE IF NOT EXISTS surroundings (name TEXT, vector BLOB, digest BLOB)',
           "INSERT OR IGNORE INTO about VALUES ('removals', '0')")


class RegionEncoder(Protocol):
    """What turns regions of pictures into vectors: a model's frozen tower, as an inferencer uses it."""

    @property
    def signature(self) -> Mapping[str, str | int]:
        """What decides the vectors; `tower` names the tower for errors, `channels` is their width C."""

    def __call__(self, image: Any, *, mask: Any = None, box: Sequence[float] | None = None) -> Tensor:
        """The vector (C,) of a region of a picture."""

    def surroundings(self, image: Any, *, mask: Any = None, box: Sequence[float] | None = None) -> Tensor:
        """Vectors (M, C) of what else the picture shows; M is 0 for models that do not ask."""


@dataclass(frozen=True)
class Examples:
    """What a memory holds.

    Attributes:
        vectors: (N, C) float32 of length 1, in the order in which they were added.
        lengths: (N, 1), so that the product is what the tower gave.
        names: of the N examples.
        state: changes with every change of the file; equal states hold equal examples.
    """

    vectors: Tensor
    lengths: Tensor
    names: tuple[str, ...]
    state: tuple[int, int] = (0, 0)
    rows: dict[str, list[int]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for row, name in enumerate(self.names):
            self.rows.setdefault(same_word(name), []).append(row)

    def of_words(self, words: Sequence[str]) -> list[int]:
        """Rows of the examples that carry any of these words as their name."""
        return [row for word in dict.fromkeys(map(same_word, words)) for row in self.rows.get(word, ())]


class ClassMemory:
    """Examples of classes: add some pictures with a mask or a box, and models that take `memory` know the class.

    Nothing is trained. What is removed leaves no trace in any result.

    Args:
        path: the file; made with its folder when the first example is added.
        encoder: makes the vectors; an inferencer that is given the memory brings its own. Without one the memory can be
            listed, exported and shortened.

    Raises:
        UserError: the file belongs to another tower, or it is no memory.
    """

    def __init__(self, path: str | Path, encoder: RegionEncoder | None = None) -> None:
        self.path = Path(path).expanduser()
        self.encoder: RegionEncoder | None = None
        self._examples = _nothing()
        if encoder is not None:
            self.attach(encoder)

    def attach(self, encoder: RegionEncoder) -> None:
        """Use this encoder from now on.

        Raises:
            UserError: the examples are vectors of another tower; the text names both.
        """
        stored = self.signature
        given = dict(encoder.signature)
        if stored is not None and stored != given:
            different = [key for key in sorted({*stored, *given}) if stored.get(key) != given.get(key)]
            raise UserError(f'{self.path} holds examples as {stored.get("tower")} sees them, but the model\'s tower is '
                            f'{given.get("tower")} ({", ".join(different)} differ); take the model that they were '
                            'added with, or add the examples to a new memory')
        self.encoder = encoder

    @property
    def signature(self) -> dict[str, str | int] | None:
        """What decides the vectors in the file; None as long as it holds none."""
        if not self.path.is_file():
            return None
        with self._open() as database:
            stored = _about(database).get('signature')
        return None if stored is None else json.loads(stored)

    # ------------------------------------------------------------------------------------------------ changes
    def add(self, image: Any, name: str, *, mask: Any = None, box: Sequence[float] | None = None) -> None:
        """Remember a region of a picture as an example of a class.

        Args:
            image: a picture as inferencers take them: a path, an address, an array (H, W, 3) RGB, a PIL picture.
            name: of the class.
            mask: (H, W) array, not 0 inside; or the path of such a picture.
            box: x1, y1, x2, y2 in pixels, in place of a mask.

        Raises:
            UserError: no encoder, no name, neither mask nor box or both, a region that does not fit the picture.
        """
        if self.encoder is None:
            raise UserError(f'{self.path} looks at no pictures without a model; give it to an inferencer as `memory`')
        self.add_vectors([name], self.encoder(image, mask=mask, box=box)[None],
                         surroundings=self.encoder.surroundings(image, mask=mask, box=box))

    def add_vectors(self, names: Sequence[str], vectors: Tensor, *, surroundings: Tensor | None = None) -> None:
        """Add examples whose vectors (N, C) the encoder has made; all of them or, after an error, none.

        `surroundings` (M, C) are of what else the pictures of these examples show; they go with the first name.

        Raises:
            UserError: no encoder, an empty name, or vectors of another width.
        """
        if self.encoder is None:
            raise UserError(f'{self.path} needs an encoder before vectors are added: it says which tower made them')
        signature = dict(self.encoder.signature)
        if any(not name.strip() for name in names):
            raise UserError('an example needs the name of its class, got an empty one')
        if vectors.shape != (len(names), signature['channels']):
            raise UserError(f'{len(names)} examples of {signature["tower"]} have vectors ({len(names)}, '
                            f'{signature["channels"]}), got {tuple(vectors.shape)}')
        rows = _rows(names, vectors)
        around = [] if surroundings is None else _rows([names[0]] * len(surroundings), surroundings)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            for table in _TABLES:
                database.execute(table)
            database.execute("INSERT OR IGNORE INTO about VALUES ('signature', ?)", (json.dumps(signature), ))
            if json.loads(_about(database)['signature']) != signature:  # another process was faster with another tower
                raise UserError(f'{self.path} has become a memory of another tower; add the examples to a new one')
            database.executemany('INSERT INTO regions (name, vector, digest) VALUES (?, ?, ?)', rows)
            database.executemany('INSERT INTO surroundings VALUES (?, ?, ?)', around)

    def remove(self, name: str) -> int:
        """Forget a class; results are then bit for bit what they were without it.

        Returns:
            How many examples it had.

        Raises:
            UnknownName: it has none; the text lists the nearest names.
        """
        written = {same_word(known): known for known in self.list()}
        stored = written.get(same_word(name)) or lookup(name, list(written.values()), f'class of {self.path}')
        with self._open() as database:
            for table in _TABLES:
                database.execute(table)
            spellings = [known for known, in database.execute('SELECT DISTINCT name FROM regions')
                         if same_word(known) == same_word(stored)]
            gone = sum(database.execute('DELETE FROM regions WHERE name = ?', (known, )).rowcount
                       for known in spellings)
            for known in spellings:
                database.execute('DELETE FROM surroundings WHERE name = ?', (known, ))
            database.execute("UPDATE about SET value = value + 1 WHERE key = 'removals'")
            if not database.execute('SELECT COUNT(*) FROM regions').fetchone()[0]:
                database.execute("DELETE FROM about WHERE key = 'signature'")  # any tower may start anew
        return gone

    # ------------------------------------------------------------------------------------------------ reading
    def list(self) -> dict[str, int]:
        """Names of the classes, as first written, with the number of their examples, in the order of their coming."""
        if not self.path.is_file():
            return {}
        counts: dict[str, list[Any]] = {}
        with self._open() as database:
            for name, count in database.execute('SELECT name, COUNT(*) FROM regions GROUP BY name ORDER BY MIN(id)'):
                counts.setdefault(same_word(name), [name, 0])[1] += count
        return {name: count for name, count in counts.values()}

    def export(self, path: str | Path) -> Path:
        """Write a copy into one file to hand on; it is a memory itself.

        Raises:
            MissingFile: there is nothing to export.
        """
        path = Path(path).expanduser()
        if not self.path.is_file():
            raise MissingFile(f'there is no {self.path}, so there is nothing to export; add examples first')
        with whole_file(path) as part:
            part.unlink()
            with self._open() as database:
                database.commit()
                database.execute('VACUUM INTO ?', (str(part), ))
        return path

    def examples(self) -> Examples:
        """All examples; only what is new since the last call is read.

        Raises:
            UnreadableFile: the file, or an example in it, is damaged.
        """
        if not self.path.is_file():
            return _nothing()
        with self._open() as database:
            about = _about(database)
            if 'signature' not in about:
                return _nothing(int(about['removals']))
            removals, last = int(about['removals']), self._examples.state[1]
            if removals != self._examples.state[0]:
                self._examples, last = _nothing(), 0
            new = database.execute('SELECT id, name, vector, digest FROM regions WHERE id > ? ORDER BY id',
                                   (last, )).fetchall()
        if new:
            self._append(new, removals, json.loads(about['signature'])['channels'])
        return self._examples

    def surroundings(self) -> Tensor:
        """(M, C) float32: what else the pictures of all examples show, in the order in which it was added.

        Raises:
            UnreadableFile: the file, or a vector in it, is damaged.
        """
        signature = self.signature
        if signature is None:
            return torch.zeros(0, 0)
        with self._open() as database:
            known = database.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'surroundings'").fetchone()[0]
            rows = database.execute('SELECT name, vector, digest FROM surroundings ORDER BY rowid').fetchall() \
                if known else []
        return self._vectors(rows, int(signature['channels']))

    def _append(self, rows: Sequence[tuple[int, str, bytes, bytes]], removals: int, channels: int) -> None:
        known, vectors = self._examples, self._vectors([row[1:] for row in rows], channels)
        lengths = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        vectors /= lengths
        if known.names:
            vectors, lengths = torch.cat([known.vectors, vectors]), torch.cat([known.lengths, lengths])
        self._examples = Examples(vectors, lengths, (*known.names, *(row[1] for row in rows)), (removals, rows[-1][0]))

    def _vectors(self, rows: Sequence[tuple[str, bytes, bytes]], channels: int) -> Tensor:
        damaged = sorted({name for name, vector, digest in rows
                          if len(vector) != 4 * channels or hashlib.sha256(vector).digest() != digest})
        if damaged:
            raise UnreadableFile(f'{self.path} holds damaged examples of {", ".join(damaged)}; remove these classes '
                                 f'(`frozenmm memory remove {self.path} NAME`) and add their examples again')
        content = b''.join(vector for _, vector, _ in rows)
        return torch.from_numpy(np.frombuffer(content, np.float32).reshape(-1, channels).copy())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with opened(self.path) as database:
                yield database
        except sqlite3.OperationalError as error:
            if 'no such table' not in str(error):
                raise UnreadableFile(f'{self.path} cannot be used as a memory of classes ({error}); can its folder be '
                                     'written, and is there room?') from error
            raise UnreadableFile(f'{self.path} is no memory of classes; give another path') from error
        except sqlite3.DatabaseError as error:
            raise UnreadableFile(f'{self.path} is no memory of classes, or it is damaged ({error}); take a copy that '
                                 '`frozenmm memory export` wrote, or start a new one') from error


def _rows(names: Sequence[str], vectors: Tensor) -> list[tuple[str, bytes, bytes]]:
    contents = [vector.tobytes() for vector in vectors.detach().float().cpu().numpy()]
    return [(' '.join(name.split()), content, hashlib.sha256(content).digest())
            for name, content in zip(names, contents)]


def _nothing(removals: int = 0) -> Examples:
    return Examples(torch.zeros(0, 0), torch.zeros(0, 1), (), (removals, 0))


def _about(database: sqlite3.Connection) -> dict[str, str]:
    return dict(database.execute('SELECT key, value FROM about'))
