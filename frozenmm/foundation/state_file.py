"""Read a checkpoint file as names and tensors, without running code that it may contain."""
from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_CONTAINERS = ('state_dict', 'model', 'model_state_dict', 'module', 'teacher', 'model_ema')
_PREFIXES = ('module.', '_orig_mod.')
_FOREIGN = re.compile(r'(?:Unsupported global: GLOBAL|unsupported class|Unsupported class) (\S+)')


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint, on the CPU.

    Takes safetensors, `torch.save` files (opened with `weights_only=True`; the state dict may lie under `'state_dict'`,
    `'model'`, ...) and TorchScript archives (the form of OpenAI's CLIP files; loading one compiles TorchScript and
    unpickles nothing).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a text file, a truncated or damaged file, a pickle that needs more than tensors, or a file without
            tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        kind = 'is a folder, not a weights file' if path.is_dir() else 'does not exist'
        raise FileNotFoundError(f'weights file {path.absolute()} {kind}')
    state = _read_safetensors(path) if path.suffix == '.safetensors' else _read_torch(path)
    state = _strip(_unwrap(state, path))
    if not state:
        raise ValueError(f'{path} holds no tensors; expected a state dict (names and tensors)')
    return state


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f'{path} ({path.stat().st_size:,} bytes) is truncated or damaged ({error}); '
                      'delete it and fetch it again')


def _read_safetensors(path: Path) -> Mapping[str, object]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    try:
        return load_file(path)
    except SafetensorError as error:
        _refuse_text(path)
        raise _damaged(path, error) from None


def _read_torch(path: Path) -> object:
    _refuse_text(path)
    with path.open('rb') as file:
        start = file.read(2)
    if start == b'PK' and not zipfile.is_zipfile(path):
        raise _damaged(path, ValueError('its end is missing'))
    if start == b'PK':
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                return _read_torchscript(path)
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        found = _FOREIGN.search(str(error))
        if found is None:
            raise _damaged(path, ValueError('it is no readable pickle')) from None
        raise ValueError(
            f'{path} holds Python objects besides tensors ({found[1]}), and loading those can run code. If you trust '
            'its source, save its tensors alone: state = torch.load(path, weights_only=False); '
            "torch.save(state['state_dict'], new_path)") from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from None


def _read_torchscript(path: Path) -> Mapping[str, object]:
    try:
        return torch.jit.load(str(path), map_location='cpu').state_dict()
    except RuntimeError as error:
        raise _damaged(path, RuntimeError(_first_line(error))) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160]


def _refuse_text(path: Path) -> None:
    with path.open('rb') as file:
        start = file.read(512)
    if not start:
        raise ValueError(f'{path} is empty; fetch it again')
    if start.startswith(b'version https://git-lfs'):
        raise ValueError(f'{path} is a Git LFS pointer, not the weights themselves; run `git lfs pull`')
    if all(byte in b'\t\r\n\f\b' or 32 <= byte < 127 for byte in start):
        raise ValueError(f'{path} is a text file, not a checkpoint; it begins with {start[:40].decode()!r}')


def _unwrap(state: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint that may keep them one or two levels down."""
    for _ in range(2):
        if isinstance(state, Mapping):
            inner = next((state[key] for key in _CONTAINERS if isinstance(state.get(key), Mapping)), None)
            state = state if inner is None else inner
    if not isinstance(state, Mapping):
        raise ValueError(f'{path} holds a {type(state).__name__}; expected a state dict (names and tensors)')
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers (data parallel, compile) put before every name."""
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix):]: value for key, value in state.items()}
    return state
