"""Opening checkpoint files: safe by default, with errors that say what is wrong with a file.

A pickle can run any code when it is opened. So files open as safetensors or with `weights_only=True`, to which the
harmless objects are made known that mmengine's runner stores beside the weights (histories of what was logged). What
needs more is refused with an explanation. Hooks of a user may store anything in a run's own checkpoints:
`trust_folder` allows that for one named folder, and only there.
"""
from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from frozenmm.compat.files import whole_file
from frozenmm.errors import MissingFile, UnreadableFile, UserError, reading

_trusted: set[Path] = set()
_DAMAGED = 'it is truncated, damaged or no checkpoint: delete it and fetch it again'


class UnsafeCheckpoint(UserError):
    """The file needs a full pickle, which could run code of its author."""


def load_checkpoint_file(path: str | Path, *, trusted: bool = False, map_location: Any = 'cpu') -> dict[str, Any]:
    """The content of a checkpoint file.

    Args:
        path: a `.safetensors` file, or a file of `torch.save` (also TorchScript archives: their state dict).
        trusted: open a full pickle. Only for files that you made yourself or whose author you trust.
        map_location: see `torch.load`.

    Returns:
        The saved dictionary. For safetensors: `state_dict`, and `meta` with the header's entries (JSON values decoded).

    Raises:
        MissingFile: no such file.
        UnsafeCheckpoint: it needs a full pickle and `trusted` is False.
        UserError: it is truncated, corrupt, or no checkpoint at all.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        kind = 'is a folder, not a checkpoint file' if path.is_dir() else 'does not exist'
        raise MissingFile(f'checkpoint file {path.absolute()} {kind}')
    with path.open('rb') as file:
        head = file.read(64)
    if not head:
        raise UserError(f'{path} is empty; fetch it again')
    _refuse_text(path, head)
    with reading(path, 'a checkpoint', _DAMAGED):
        if path.suffix == '.safetensors':
            return _load_safetensors(path, map_location)
        content = _load_torch(path, head, trusted, map_location)
    if isinstance(content, torch.jit.ScriptModule):
        return dict(state_dict=dict(content.state_dict()))
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}; expected a state dict (names and tensors)')
    return content


def _load_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    from safetensors import safe_open
    with safe_open(path, 'pt', device=str(map_location or 'cpu')) as file:
        header = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}
    return dict(state_dict=state, meta={key: _decoded(value) for key, value in header.items()})


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _refuse_text(path: Path, head: bytes) -> None:
    if head.startswith(b'version https://git-lfs'):
        raise UserError(f'{path} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`')
    if head.lstrip()[:1] in (b'<', b'{') or all(byte in b'\t\n\r' or 32 <= byte < 127 for byte in head):
        raise UserError(f'{path} is a text file, not a checkpoint; it begins with '
                         f'{head[:40].decode(errors="replace")!r}; perhaps a download stored an error page')


def _load_torch(path: Path, head: bytes, trusted: bool, map_location: Any) -> Any:
    zipped = head.startswith(b'PK')
    if zipped and not zipfile.is_zipfile(path):
        raise UnreadableFile(f'{path} cannot be read as a checkpoint: its end is missing; {_DAMAGED}')
    try:
        if zipped and _is_scripted(path):
            return torch.jit.load(str(path), map_location=map_location)
        with torch.serialization.safe_globals(_harmless_objects()):
            return torch.load(path, map_location=map_location, weights_only=not trusted)
    except pickle.UnpicklingError as error:
        if not trusted and _is_pickle(head):
            raise UnsafeCheckpoint(
                f'{path} holds Python objects besides tensors, and opening it could run code of its author. '
                f'If you made it yourself or trust its author, save its tensors alone: '
                "torch.save(torch.load(path, weights_only=False)['state_dict'], new_path). "
                f'({_first_line(error)})') from None
        raise


def _harmless_objects() -> list[Any]:
    """What may stand in a checkpoint beside tensors and plain values.

    `argparse.Namespace` is in the files of many official detectors. mmengine's runner stores `HistoryBuffer`, with
    NumPy arrays inside and its own methods looked up by `getattr`; only that look-up is answered. NumPy 1 and 2 name
    the functions that rebuild arrays by different modules, and a file of either opens under both.
    """
    array = np.zeros(1)
    functions: list[Any] = [array.__reduce__()[0], array[0].__reduce__()[0]]  # rebuild an array, a scalar
    named = [(function, f'{module}.{function.__name__}') for function in functions
             for module in ('numpy._core.multiarray', 'numpy.core.multiarray')]
    return [argparse.Namespace, HistoryBuffer, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in 'fdilqI?'},
            *named, (_method_of_history, 'builtins.getattr')]


def _method_of_history(owner: Any, name: str) -> Any:
    """`getattr` as `HistoryBuffer` needs it, and for nothing else."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'WeightsUnpickler error: Unsupported getattr of {owner!r}, {name!r}')


def _is_scripted(path: Path) -> bool:
    """Whether an archive holds TorchScript."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('constants.pkl') for name in archive.namelist())


def _is_pickle(head: bytes) -> bool:
    """Whether a file begins like an archive of `torch.save` or like a pickle of a known protocol."""
    return head.startswith(b'PK') or (head[0] == 0x80 and head[1] <= pickle.HIGHEST_PROTOCOL)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith('WeightsUnpickler error')), lines[0] if lines else '')


def save_checkpoint_file(path: str | Path, state: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write weights as safetensors with a JSON header; the file appears complete or not at all.

    Args:
        path: the file to write, `.safetensors`.
        state: tensors by key.
        meta: header entries, stored as JSON.

    Raises:
        UserError: another suffix.
    """
    from safetensors.torch import save_file
    path = Path(path).expanduser()
    if path.suffix != '.safetensors':
        raise UserError(f'weights are written as safetensors, so name the file {path.stem}.safetensors, '
                         f'got {path.name}')
    with whole_file(path) as part:
        # copies, because safetensors refuses tensors that share memory
        save_file({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, part,
                  metadata={key: json.dumps(value) for key, value in meta.items()})


def trust_folder(folder: str | Path) -> None:
    """Let mmengine open full pickles below `folder`, and everything else safely.

    Resuming needs all that a run's own checkpoints hold, also what hooks of its user put there. Call this with the
    work folder before building a Runner. It replaces mmengine's loader of local files, so that `load_from` and `resume`
    elsewhere open with `load_checkpoint_file`, safetensors included.

    Args:
        folder: the work folder of a run; links are resolved, so a link inside that leads out is not trusted.
    """
    _trusted.add(Path(folder).expanduser().resolve())
    if CheckpointLoader._schemes.get('') is not load_from_local:
        CheckpointLoader.register_scheme('', load_from_local, force=True)
        print_log('local checkpoints open safely; full pickles only inside the work folder', logger='current', level=10)


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """The loader of local files that mmengine uses under `trust_folder`."""
    path = Path(filename).expanduser().resolve()
    trusted = any(folder in path.parents for folder in _trusted)
    try:
        return load_checkpoint_file(path, trusted=trusted, map_location=map_location)
    except UnsafeCheckpoint as error:
        raise UnsafeCheckpoint(f'{error} To resume a run, use its own work folder (`work_dir`).') from None
