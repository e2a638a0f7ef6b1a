"""Interim results of a run on disk, so that an interrupted run goes on where it stopped."""
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from frozenmm.compat.files import whole_file
from frozenmm.errors import UserError, reading


class StoredState:
    """A folder of arrays that belong to one input and one choice of settings.

    Args:
        folder: of the files.
        key: whatever decides the results; what was saved under another key is not found.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def with_key(self, more: str) -> StoredState:
        """The same folder for results that depend on more."""
        return StoredState(self.folder, f'{self.key} {more}')

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Arrays that were saved under this name and key; None where there are none, or where they are damaged."""
        path = self.folder / f'{name}.npz'
        if not path.is_file():
            return None
        try:
            with reading(path, 'the state of an earlier run', 'it is computed again'), np.load(path) as content:
                arrays = dict(content)
                return arrays if str(arrays.pop('key')) == self.key else None
        except UserError as error:
            print_log(str(error), logger='current', level=logging.WARNING)
            return None

    def save(self, name: str, **arrays: np.ndarray) -> None:
        """Write arrays, as a whole or not at all."""
        content: dict[str, Any] = {'key': np.array(self.key), **arrays}  # savez has a named argument of another type
        with whole_file(self.folder / f'{name}.npz') as part, part.open('wb') as stream:
            np.savez(stream, **content)
