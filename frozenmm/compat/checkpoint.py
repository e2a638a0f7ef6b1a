"""Opening checkpoint files: safe by default, with errors that say what is wrong with a file.

A pickle can run any code when it is opened. So files open as safetensors or with `weights_only=True`, to which the
harmless objects are made known that mmengine's runner stores beside the weights (histories of what was logged). What
needs more is refused with an explanation, wherever it lies; only the user's own word (`--trust`) opens it.
"""
from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from frozenmm.compat.files import whole_file
from frozenmm.compat.plain_pickle import torch_globals, without_stand_ins
from frozenmm.errors import MissingFile, UnreadableFile, UserError, reading

_TENSORS_ONLY = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
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
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}; expected a state dict (names and tensors)')
    if not content or content.get('state_dict', True) in ({}, None):
        raise UserError(f'{path} holds no weights at all; it is no checkpoint of a model')
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
            return dict(state_dict=_scripted_state(path, map_location))
        with torch.serialization.safe_globals(_harmless_objects()):
            return without_stand_ins(torch.load(path, map_location=map_location, weights_only=not trusted))
    except pickle.UnpicklingError as error:
        if not trusted and _is_pickle(head):
            raise _unsafe(path, error) from None
        raise


def _unsafe(source: str | Path, error: Exception) -> UnsafeCheckpoint:
    return UnsafeCheckpoint(
        f'{source} holds Python objects besides tensors, and opening it could run code of its author. If you made it '
        'yourself or trust its author, run the command again with --trust (in Python: trusted=True), or save its '
        "tensors alone: torch.save(torch.load(path, weights_only=False)['state_dict'], new_path). "
        f'({_first_line(error)})')


def _scripted_state(path: Path, map_location: Any) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by name.

    `torch.jit.load` would run the archive's code, which may write files. So the archive is read as the pickle of
    tensors that it contains, its classes as bare holders of attributes.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(content, 'w') as tensors:
        root = next(name for name in archive.namelist() if name.endswith('/data.pkl')).partition('/')[0]
        for name in archive.namelist():
            if name.startswith((f'{root}/data/', f'{root}/data.pkl', f'{root}/version', f'{root}/byteorder')):
                tensors.writestr(name, archive.read(name))
        named = {str(value).replace(' ', '.') for code, value, _ in
                 pickletools.genops(archive.read(f'{root}/data.pkl')) if code.name == 'GLOBAL'}
    classes = [(_Attributes, name) for name in named if name.startswith('__torch__.')]
    lists = [(_first, name) for name in named if name.startswith('torch.jit._pickle.')]
    content.seek(0)
    with torch.serialization.safe_globals([*classes, *lists]):
        return dict(_named_tensors(torch.load(content, map_location=map_location, weights_only=True), ''))


class _Attributes:
    """An object of TorchScript: its attributes."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = dict(state) if isinstance(state, dict) else {}


def _first(value: Any, *_: Any) -> Any:
    """What marks the type of a list in an archive: the list."""
    return value


def _named_tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, 'attributes', {}).items():
        if isinstance(value, Tensor):
            yield f'{prefix}{name}', value.detach()
        elif isinstance(value, _Attributes):
            yield from _named_tensors(value, f'{prefix}{name}.')


class _History(HistoryBuffer):
    """A history of the runner while its file is read."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        content = without_stand_ins(dict(state))
        for name in ('_log_history', '_count_history'):
            if not isinstance(content[name], np.ndarray):
                raise pickle.UnpicklingError(f'WeightsUnpickler error: a history whose {name} is no array')
        self._log_history, self._count_history = content['_log_history'], content['_count_history']
        self.max_length = int(content['max_length'])
        self._set_default_statistics()
        self.__class__ = HistoryBuffer  # type: ignore[assignment]


def _harmless_objects() -> list[Any]:
    """What may stand in a checkpoint beside tensors and plain values.

    `argparse.Namespace` is in the files of many official detectors. mmengine's runner stores `HistoryBuffer`, with
    NumPy arrays inside and its own methods looked up by `getattr`; only that look-up is answered. Arrays are checked,
    see `plain_pickle`.
    """
    history = 'mmengine.logging.history_buffer.HistoryBuffer'
    return [argparse.Namespace, *torch_globals(), (_History, history), (_method_of_history, 'builtins.getattr')]


def _method_of_history(owner: Any, name: str) -> Any:
    """`getattr` as `HistoryBuffer` needs it, and for nothing else."""
    if owner is _History and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'WeightsUnpickler error: Unsupported getattr of {owner!r}, {name!r}')


def _is_scripted(path: Path) -> bool:
    """Whether an archive holds TorchScript."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('constants.pkl') for name in archive.namelist())


def _is_pickle(head: bytes) -> bool:
    """Whether a file begins like an archive of `torch.save` or like a pickle of a known protocol."""
    return head.startswith(b'PK') or (head[0] == 0x80 and head[1] <= pickle.HIGHEST_PROTOCOL)


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line.startswith('WeightsUnpickler error')), 'its pickle is of another form '
                'than torch.save writes')


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


def open_checkpoints_safely(*, trusted: bool = False) -> None:
    """Let mmengine open what `load_from`, `resume` and `init_cfg` name as `load_checkpoint_file` does.

    Where a file lies says nothing about who made it, so no place is trusted: not the work folder, not the file's own.
    Files from the network, which mmengine fetches by itself, open their tensors alone.

    Args:
        trusted: open full pickles. The user must have asked for that.
    """
    from mmengine.runner.checkpoint import CheckpointLoader  # it imports all of the runner, which takes seconds

    for scheme, loader in list(CheckpointLoader._schemes.items()):
        loader = getattr(loader, 'fetches', loader)  # the one that an earlier call has wrapped
        ours = _Loader(scheme, loader, trusted)
        CheckpointLoader.register_scheme(scheme, ours, force=True)


class _Loader:
    """A loader of mmengine's, made safe.

    Args:
        scheme: beginning of the addresses that it is for; empty for files.
        fetches: mmengine's own.
        trusted: see `open_checkpoints_safely`.
    """

    def __init__(self, scheme: str, fetches: Callable[..., Any], trusted: bool) -> None:
        self.scheme, self.fetches, self.trusted = scheme, fetches, trusted
        self.__name__ = fetches.__name__  # mmengine logs it

    def __call__(self, filename: str, map_location: Any = None) -> Any:
        if not self.scheme:
            return load_checkpoint_file(filename, trusted=self.trusted, map_location=map_location)
        before = os.environ.get(_TENSORS_ONLY)
        try:
            if not self.trusted:
                os.environ[_TENSORS_ONLY] = '1'
            with torch.serialization.safe_globals(_harmless_objects()):
                content = self.fetches(filename, map_location=map_location)
        except pickle.UnpicklingError as error:
            raise _unsafe(filename, error) from None
        finally:
            os.environ.pop(_TENSORS_ONLY, None)
            if before is not None:
                os.environ[_TENSORS_ONLY] = before
        return without_stand_ins(content)
