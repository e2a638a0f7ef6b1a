"""A folder of painted pictures and the record in it that says with which settings they were made."""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from mmengine.logging import print_log

from frozenmm.compat.files import write_whole
from frozenmm.datasets.progress import Progress
from frozenmm.errors import MissingFile, UserError, reading

SPLITS = ('train', 'val')
Job = tuple[str, int]
"""Split and number of a picture."""
Settings = TypeVar('Settings')


def settings_from(kind: type[Settings], given: Mapping[str, Any] | None) -> Settings:
    """The settings that a config gives; lists become tuples.

    Raises:
        UserError: a field that these settings do not have.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [key for key in given or {} if key not in known]
    if unknown:
        raise UserError(f'{kind.__name__} has no {unknown}; it has {known}')
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in (given or {}).items()})


def check_split(split: str) -> str:
    """The split.

    Raises:
        UserError: unknown split.
    """
    if split not in SPLITS:
        raise UserError(f'split must be one of {list(SPLITS)}, got {split!r}')
    return split


class PaintedFolder:
    """Pictures that depend on settings, split and number alone, so that an interrupted run goes on where it stopped.

    Args:
        folder: of the pictures.
        kind: `'scenes'` or `'rooms'`; the record is called `KIND.json`, the tool `tools/make_KIND.py`.
        settings: dataclass instance of everything that decides the content.
        version: raised whenever the same settings would give other pictures.
    """

    def __init__(self, folder: str | Path, kind: str, settings: Any, *, version: int) -> None:
        self.folder, self.kind = Path(folder), kind
        # through JSON and back, so that tuples compare equal to what the file gives
        self.wanted = json.loads(json.dumps({'version': version, **asdict(settings)}))
        self.record = self.folder / f'{kind}.json'

    def is_complete(self) -> bool:
        """Whether all pictures are there.

        Raises:
            UserError: the folder holds pictures of other settings, or its record is damaged.
        """
        if not self.record.is_file():
            return False
        with reading(self.record, f'the record of generated {self.kind}', 'remove the folder to paint it again'):
            found = json.loads(self.record.read_text())
            made, complete = found['settings'], bool(found['complete'])
        if made != self.wanted:
            raise UserError(f'{self.folder} holds {self.kind} made with {made}, but {self.wanted} is asked for; remove '
                            'the folder or name another one')
        return complete

    def require(self) -> Path:
        """The folder, if all pictures are there.

        Raises:
            MissingFile: they are not; the text gives the command that paints them.
            UserError: see `is_complete`.
        """
        if not self.is_complete():
            raise MissingFile(f'{self.folder} holds no finished {self.kind} ({self.record.name}); paint them: '
                              f'python tools/make_{self.kind}.py {self.folder} (tools/train.py and tools/test.py do '
                              'so by themselves)')
        return self.folder

    def paint(self, jobs: Sequence[Job], is_there: Callable[[Job], bool], paint_one: Callable[[Job], None]) -> None:
        """Paint what is missing; `finish` says that the folder is whole.

        Args:
            jobs: every picture.
            is_there: whether one is finished.
            paint_one: writes one.
        """
        self._note(complete=False)
        missing = [job for job in jobs if not is_there(job)]
        print_log(f'{self.folder}: painting {len(missing)} of {len(jobs)} {self.kind}', logger='current')
        progress = Progress(len(missing), unit=self.kind)
        for job in missing:
            paint_one(job)
            progress.add(1, str(self.folder))

    def finish(self) -> Path:
        """Note that all is there; returns the folder."""
        self._note(complete=True)
        return self.folder

    def _note(self, *, complete: bool) -> None:
        write_whole(self.record, json.dumps({'settings': self.wanted, 'complete': complete}, indent=1).encode())
