"""Small checkpoints of our own, and the index of them: `frozenmm/zoo/index.json`.

How to add one: write the trained part with `frozenmm.compat.checkpoint.save_checkpoint_file` into
`frozenmm/zoo/weights/NAME-SHA8.safetensors` (SHA8: the first eight digits of the file's SHA-256; at most 10 MB), with
the header entries `config`, `data`, `revision`, `metrics` and `base_models` (name and fingerprint of every frozen
network).
Then add one entry to `index.json`::

    "NAME": {
     "aliases": ["other names"],
     "task": "open-vocabulary" | "semantic" | "detection" | "depth" | "proposals",
     "config": "configs/SYSTEM/CONFIG.py", or null where the file is no model of a config (a tower, a depth network),
     "file": "NAME-SHA8.safetensors",
     "sha256": "all 64 digits",
     "what": "one sentence: the model, its data, what it can and cannot do",
     "license": "of these weights",
     "data_terms": "of what they were trained on",
     "make": "the command that trains it"
    }

`python -m frozenmm.zoo verify` then says whether file, hash and header are as they should be; so does a test. `file`
and `sha256` may be null for a checkpoint that is not shipped: resolving its name then says which command makes it, or
uses a file that the user put into the cache folder under `NAME.safetensors`.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozenmm.compat.fetch import file_digest
from frozenmm.errors import MissingFile, UnknownName, UserError, reading
from frozenmm.foundation.lookup import lookup
from frozenmm.foundation.weights import weights_folder
from frozenmm.zoo.folders import data_folder

INDEX = Path(__file__).with_name('index.json')
FOLDER = Path(__file__).with_name('weights')
CHECKPOINT_TASKS = ('open-vocabulary', 'semantic', 'detection', 'depth', 'proposals')
HEADER = ('config', 'data', 'revision', 'metrics', 'base_models')
"""What the header of a checkpoint of ours must say."""
LARGEST = 10_000_000
LARGEST_SUM = 40_000_000
ENTRY_KEYS = ('aliases', 'task', 'config', 'file', 'sha256', 'what', 'license', 'data_terms', 'make')


@dataclass(frozen=True)
class Checkpoint:
    """An entry of the index; see the docstring of this file."""

    name: str
    aliases: tuple[str, ...]
    task: str
    config: str | None
    file: str | None
    sha256: str | None
    what: str
    license: str
    data_terms: str
    make: str

    @property
    def path(self) -> Path:
        """The shipped file, or, where none is shipped, the place in the cache folder for one of the user's."""
        return FOLDER / self.file if self.file else weights_folder() / f'{self.name}.safetensors'

    @property
    def config_path(self) -> Path | None:
        """The config on this machine."""
        return None if self.config is None else data_folder() / self.config

    def resolve(self) -> Path:
        """The file on this machine.

        Raises:
            MissingFile: it is not there; the text says how to get it.
            UserError: it is a Git LFS pointer, truncated or otherwise not the published file.
        """
        if not self.path.is_file():
            raise MissingFile(self._missing())
        if self.file is not None:
            self.check_hash()
        return self.path

    def check_hash(self) -> None:
        """Compare the file with the index.

        Raises:
            UserError: it is another file.
        """
        found = file_digest(self.path)
        if found != self.sha256:
            raise UserError(f'{self.path} has the SHA-256 {found[:16]}..., but the index of the zoo says '
                             f'{str(self.sha256)[:16]}...; the file is damaged or was changed: check it out or install '
                             'frozenmm again')

    def header(self) -> dict[str, Any]:
        """The header of the file, JSON values decoded."""
        from frozenmm.compat.checkpoint import load_checkpoint_file
        return load_checkpoint_file(self.resolve())['meta']

    def _missing(self) -> str:
        if self.file is None:
            return (f'the checkpoint {self.name} is not shipped. Make it with `{self.make}`, export it, and put it at '
                    f'{self.path}; or give the path of a checkpoint of the config {self.config}')
        return (f'the checkpoint {self.name} should lie at {self.path} but does not; check the repository out again '
                f'(git checkout -- frozenmm/zoo/weights), reinstall frozenmm, or make it with `{self.make}`')


def read_index(path: Path = INDEX) -> dict[str, Checkpoint]:
    """All checkpoints by name.

    Raises:
        UserError: the index is no such file, an entry lacks a key or has an unknown one, or two entries share a name.
    """
    with reading(path, 'the index of the zoo', 'check it out or install frozenmm again'):
        return _checkpoints(json.loads(path.read_text(encoding='utf-8')), path)


def _checkpoints(entries: object, path: Path) -> dict[str, Checkpoint]:
    if not isinstance(entries, Mapping):
        raise UserError(f'{path} must hold one object with an entry per checkpoint, got a {type(entries).__name__}')
    found: dict[str, Checkpoint] = {}
    taken: dict[str, str] = {}
    for name, entry in entries.items():
        found[name] = _checked(name, entry, path)
        for alias in (name, *found[name].aliases):
            if alias in taken:
                raise UserError(f'{path}: {alias!r} names both {taken[alias]} and {name}')
            taken[alias] = name
    return found


def _checked(name: str, entry: Any, path: Path) -> Checkpoint:
    if not isinstance(entry, Mapping) or set(entry) != set(ENTRY_KEYS):
        keys = sorted(entry) if isinstance(entry, Mapping) else type(entry).__name__
        raise UserError(f'{path}: the entry {name!r} must have the keys {list(ENTRY_KEYS)}, got {keys}')
    if entry['task'] not in CHECKPOINT_TASKS:
        raise UnknownName(f'{path}: the task of {name!r} must be one of {list(CHECKPOINT_TASKS)}, '
                          f'got {entry["task"]!r}')
    if (entry['file'] is None) != (entry['sha256'] is None):
        raise UserError(f'{path}: {name!r} must give both `file` and `sha256`, or null for both')
    if entry['file'] is not None:
        if entry['file'] != Path(entry['file']).name:
            raise UserError(f'{path}: the file of {name!r} must be a name inside {FOLDER.name}/, got '
                             f'{entry["file"]!r}')
        if not entry['file'].endswith(f'-{entry["sha256"][:8]}.safetensors'):
            raise UserError(f'{path}: the file of {name!r} must end in -{entry["sha256"][:8]}.safetensors, got '
                             f'{entry["file"]!r}')
    return Checkpoint(name, tuple(entry['aliases']), **{key: entry[key] for key in ENTRY_KEYS[1:]})


def checkpoint(name: str) -> Checkpoint:
    """The entry with this name or alias.

    Raises:
        UserError: there is none; the text lists the nearest names.
    """
    index = read_index()
    names = {alias: entry for entry in index.values() for alias in (entry.name, *entry.aliases)}
    return names[lookup(name, names, 'checkpoint of the zoo')]


def is_checkpoint(name: object) -> bool:
    """Whether the index has this very name or alias."""
    return isinstance(name, str) and any(name in (entry.name, *entry.aliases) for entry in read_index().values())


def default_checkpoint(task: str) -> Checkpoint:
    """The first entry of a task whose file is on this machine.

    Raises:
        MissingFile: none is; the text says how to get one.
    """
    entries = [entry for entry in read_index().values() if entry.task == task]
    for entry in entries:
        if entry.path.is_file():
            return entry
    if not entries:
        raise MissingFile(f'the zoo has no checkpoint for {task!r}; give a config and weights of your own')
    entries[0].resolve()  # not there: says what to do
    return entries[0]


def problems(entry: Checkpoint) -> list[str]:
    """What is wrong with file, hash, size, header or config of a checkpoint; nothing for one that is not shipped."""
    if entry.file is None:
        return []
    try:
        header = entry.header()
    except UserError as error:
        return [str(error)]
    wrong = []
    size = entry.path.stat().st_size
    if size > LARGEST:
        wrong.append(f'{entry.file} has {size} bytes, more than the {LARGEST} that a checkpoint of the zoo may have')
    missing = [key for key in HEADER if key not in header]
    if missing:
        wrong.append(f'the header of {entry.file} lacks {missing}; it has {sorted(header)}')
    if entry.config_path is not None and not entry.config_path.is_file():
        wrong.append(f'{entry.name} belongs to {entry.config}, which does not exist')
    return wrong
