"""The folder of a training run: whether it holds one, its config and best checkpoint, and how to take its place."""
from __future__ import annotations

import re
import shutil
from pathlib import Path

from frozenmm.errors import MissingFile, UserError

_LOGS = re.compile(r'\d{8}_\d{6}$')
_NUMBER = re.compile(r'_(\d+)\.pth$')


def checkpoints(folder: str | Path) -> list[Path]:
    """Checkpoints of a run, the one to use first: the best of the validations, then the latest ones."""
    files = [path for path in Path(folder).glob('*.pth') if _NUMBER.search(path.name)]
    return sorted(files, key=lambda path: (path.name.startswith('best_'), _number(path)), reverse=True)


def best_checkpoint(folder: str | Path) -> Path:
    """The checkpoint of a run that its validations found best, else its last one.

    Raises:
        MissingFile: the folder holds none.
    """
    found = checkpoints(folder)
    if not found:
        raise MissingFile(f'{Path(folder).resolve()} holds no checkpoint of a training (best_*.pth, iter_*.pth, '
                          'epoch_*.pth); give the folder that `train` wrote to (--work-dir), or a checkpoint file')
    return found[0]


def run_config(folder: str | Path) -> Path:
    """The config that a run was trained with, command-line options worked in, as its training wrote it down.

    Raises:
        MissingFile: the folder holds none.
    """
    files = sorted(Path(folder).glob('*.py'), key=lambda path: path.stat().st_mtime)
    if not files:
        raise MissingFile(f'{Path(folder).resolve()} holds no config of a training (*.py); give the folder that '
                          '`train` wrote to (--work-dir)')
    return files[-1]


def make_room(folder: str | Path, *, overwrite: bool) -> None:
    """Let a new run start in a folder.

    Args:
        folder: of the new run.
        overwrite: remove what an earlier run left there: checkpoints, configs, logs and pictures of ours, nothing else.

    Raises:
        UserError: it holds a run, and `overwrite` is false.
    """
    folder = Path(folder)
    found = checkpoints(folder)
    if not found:
        return
    if not overwrite:
        raise UserError(f'{folder} holds a run already ({found[0].name}); go on with it (--resume), replace it '
                        '(--overwrite), or give another folder (--work-dir)')
    for path in (*found, *folder.glob('*.py'), folder / 'last_checkpoint', folder / 'curves.png'):
        path.unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and (_LOGS.match(path.name) or path.name == 'samples'):
            shutil.rmtree(path)


def _number(path: Path) -> int:
    found = _NUMBER.search(path.name)
    return int(found[1]) if found else -1
