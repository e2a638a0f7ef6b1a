"""Loads the compiled kernels and knows which implementation every operator uses, and why.

The operators are defined in Python with a torch path for every device (`CompositeExplicitAutograd`). The compiled
libraries add kernels for CPU and CUDA, which the dispatcher prefers. So nothing is replaced: without a library, an
operator is complete and slower. `FROZENMM_OPS` chooses: `auto` (default) loads what is there, `torch` loads nothing,
`native` raises when the CPU library is missing.
"""
from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log

from frozenmm.compat.fetch import file_digest
from frozenmm.errors import DeviceError, UnknownName, UserError, reading


def _libraries() -> Path:
    """The folder that `FROZENMM_LIBRARIES` names, the package's own, or the user's cache where that is read-only."""
    if named := os.environ.get('FROZENMM_LIBRARIES'):
        return Path(named).expanduser()
    own = Path(__file__).resolve().parent / '_lib'
    if (own / 'libfrozenmm_cpu.so').exists() or os.access(own if own.is_dir() else own.parent, os.W_OK):
        return own
    home = os.environ.get('FROZENMM_HOME') or Path('~', '.cache', 'frozenmm')
    # one folder per installation: two of them may have other sources
    name = hashlib.sha256(str(own).encode()).hexdigest()[:8]
    return Path(home).expanduser() / 'ops' / name


LIBRARIES = _libraries()
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


def read_stamp(kind: str) -> dict[str, Any]:
    """What a library's JSON file says; nothing where it is missing or broken."""
    try:
        with reading(stamp_path(kind), 'the stamp of a library', f'run `{HINT}`'):
            return dict(json.loads(stamp_path(kind).read_text(encoding='utf-8')))
    except UserError:
        return {}


def is_whole(kind: str, stamp: dict[str, Any]) -> bool:
    """Whether a library is the file that its stamp describes.

    A library that lacks its end loads, and kills the process when a missing page is touched. So it is read first.
    """
    path = library_path(kind)
    return path.stat().st_size == stamp.get('size') and file_digest(path) == stamp.get('sha256')


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
    stamp = read_stamp(kind)
    if not is_whole(kind, stamp):
        return Library(kind, False, f'{path.name} is not the file that was built (cut off, exchanged, or without its '
                       f'{stamp_path(kind).name}); run `{HINT}`')
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        made_for = stamp.get('torch', 'unknown')
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


def load_at_import() -> None:
    """`load`; a wrong `FROZENMM_OPS` is said and not raised, so that whoever imports can answer in a sentence."""
    try:
        mode()
    except UserError as error:
        print_log(f'{error}; no compiled kernels are loaded', logger='current', level=logging.ERROR)
        _state.update({kind: Library(kind, False, str(error)) for kind in ('cpu', 'cuda')})
        return
    load()


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
