"""Read a checkpoint file as names and tensors, wherever in it the state dict lies."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.errors import UserError

_CONTAINERS = ('state_dict', 'model', 'model_state_dict', 'module', 'teacher', 'model_ema')
_PREFIXES = ('module.', '_orig_mod.')


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint, on the CPU.

    Takes safetensors, `torch.save` files (opened with `weights_only=True`; the state dict may lie under `'state_dict'`,
    `'model'`, ...) and TorchScript archives (the form of OpenAI's CLIP files; of which only the tensors are read,
    unpickles nothing).

    Raises:
        MissingFile: no such file.
        UserError: a text file, a truncated or damaged file, a pickle that needs more than tensors, or a file without
            tensors.
    """
    path = Path(path).expanduser()
    state = _strip(_unwrap(load_checkpoint_file(path)))
    if not state:
        raise UserError(f'{path} holds no tensors; expected a state dict (names and tensors)')
    return state


def _unwrap(state: Mapping) -> dict[str, Tensor]:
    """The tensors of a checkpoint that may keep them one or two levels down."""
    for _ in range(2):
        state = next((state[key] for key in _CONTAINERS if isinstance(state.get(key), Mapping)), state)
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers (data parallel, compile) put before every name."""
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix):]: value for key, value in state.items()}
    return state
