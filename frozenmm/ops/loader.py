"""Loads the compiled kernels and knows which implementation every operator uses, and why.

The operators are defined in Python with a torch path for every device (`CompositeExplicitAutograd`). The compiled
libraries add kernels for CPU and CUDA, which the dispatcher prefers. So nothing is replaced: without a library, an
operator is complete and slower. `FROZENMM_OPS` chooses: `auto` (default) loads what is there, `torch` loads nothing,
`native` raises when the CPU library is missing.
"""
from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.logging import print_log

from frozenmm.errors import DeviceError, UnknownName, UserError

LIBRARIES = Path(__file__).resolve().parent / '_lib'
CHOICES = ('auto', 'torch', 'native')
"""Values of `FROZENMM_OPS`."""
HINT = 'python -m frozenmm.ops.build'
NAMESPACE = 'frozenmm'


@dataclass
class Library:
    """State of the library of one device kind."""

    kind: str
    loaded: bool
    reason: str


_state: dict[str, Library] = {}


def library_path(kind: str) -> Path:
    """The file of the `'cpu'` or `'cuda'` library, whether it exists or not."""
    return LIBRARIES / f'libfrozenmm_{kind}.so'


def stamp_path(kind: str) -> Path:
    """The JSON file beside a library that says what it was made from."""
    return library_path(kind).with_suffix('.json')


def being_built() -> bool:
    """Whether this process is `python -m frozenmm.ops.build`, which must not need what it is about to make."""
    return 'frozenmm.ops.build' in getattr(sys, 'orig_argv', ())


def mode() -> str:
    """The value of `FROZENMM_OPS`.

    Raises:
        UserError: it is none of `auto`, `torch`, `native`.
    """
    value = os.environ.get('FROZENMM_OPS') or 'auto'
    if value not in CHOICES:
        raise UserError(f'FROZENMM_OPS={value!r} is unknown; use one of {", ".join(CHOICES)}')
    return value


def _open(path: Path, kind: str) -> Library:
    if not path.exists():
        return Library(kind, False, f'{path.name} is not built; run `{HINT}`')
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        stamp = stamp_path(kind)
        made_for = json.loads(stamp.read_text()).get('torch', 'unknown') if stamp.exists() else 'unknown'
        return Library(kind, False, f'{path.name} does not load ({error}); it was built for torch {made_for}, this is '
                       f'torch {torch.__version__}; run `{HINT} --force`')
    return Library(kind, True, f'{path.name} is loaded')


def load() -> dict[str, Library]:
    """Load the libraries once, log one line, and return the state of each kind (`'cpu'`, `'cuda'`).

    Raises:
        UserError: `FROZENMM_OPS` is none of its values.
        DeviceError: `FROZENMM_OPS=native` and the CPU library is missing or does not load.
    """
    if _state:
        return _state
    wanted = mode()
    for kind in ('cpu', 'cuda'):
        if wanted == 'torch':
            _state[kind] = Library(kind, False, 'FROZENMM_OPS=torch')
        elif kind == 'cuda' and not _cuda_wanted():
            _state[kind] = Library(kind, False, 'this torch has no CUDA')
        else:
            _state[kind] = _open(library_path(kind), kind)
    if wanted == 'native' and not _state['cpu'].loaded:
        reason = _state.pop('cpu').reason
        _state.clear()
        raise DeviceError(f'FROZENMM_OPS=native, but {reason}')
    _log()
    return _state


def _cuda_wanted() -> bool:
    return torch.version.cuda is not None


def _log() -> None:
    missing = [lib.reason for lib in _state.values() if not lib.loaded and (lib.kind == 'cpu' or _cuda_wanted())]
    if missing:
        print_log(f'frozenmm.ops: torch path ({"; ".join(missing)})', logger='current', level=logging.WARNING)
    else:
        print_log('frozenmm.ops: compiled kernels are loaded', logger='current', level=logging.DEBUG)


def backend(device: str | torch.device = 'cpu') -> str:
    """`'native'` when compiled kernels serve a device, else `'torch'`."""
    state = load().get(torch.device(device).type)
    return 'native' if state is not None and state.loaded else 'torch'


def operators() -> list[str]:
    """Names of all operators of the namespace, without it."""
    names = torch._C._dispatch_get_all_op_names()
    return sorted({n.partition('::')[2].partition('.')[0] for n in names if n.startswith(f'{NAMESPACE}::')})


def implementation(operator: str, device: str = 'cpu') -> tuple[str, str]:
    """Which implementation an operator uses on a device type, and why.

    Args:
        operator: name without namespace, e.g. `'ms_deform_attn'`.
        device: `'cpu'`, `'cuda'` or another device type of torch.

    Returns:
        `('native' | 'torch', reason)`.

    Raises:
        UnknownName: there is no such operator.

    >>> implementation('mask_pool', 'mps')
    ('torch', 'no kernels for mps')
    """
    state = load()
    known = operators()
    if operator not in known:
        raise UnknownName(f'no operator {operator!r} in frozenmm.ops; there are {", ".join(known)}')
    library = state.get(device)
    if library is None:
        return 'torch', f'no kernels for {device}'
    if not library.loaded:
        return 'torch', library.reason
    key = {'cpu': 'CPU', 'cuda': 'CUDA'}[device]
    if torch._C._dispatch_has_kernel_for_dispatch_key(f'{NAMESPACE}::{operator}', key):
        return 'native', library.reason
    return 'torch', f'the library has no kernel of this operator for {device}'
