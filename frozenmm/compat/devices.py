"""Where to compute: the one place where a device's name becomes a device."""
from __future__ import annotations

import torch

from frozenmm.errors import DeviceError


def resolve_device(device: str | torch.device = 'auto') -> torch.device:
    """The device that a user names.

    Args:
        device: `'auto'` (CUDA, else MPS where it works, else the CPU), `'cpu'`, `'cuda'`, `'cuda:1'`, `'mps'`, or a
            device.

    Raises:
        DeviceError: no such kind of device, or this machine or this build of torch does not have it.

    >>> resolve_device('cpu')
    device(type='cpu')
    >>> resolve_device('gpu')
    Traceback (most recent call last):
    frozenmm.errors.DeviceError: device must be auto, cpu, cuda, cuda:1 (or another number) or mps, got 'gpu'
    """
    if device == 'auto':
        return next(torch.device(kind) for kind in ('cuda', 'mps', 'cpu') if _works(torch.device(kind)))
    try:
        found = torch.device(device)
    except RuntimeError:
        raise DeviceError('device must be auto, cpu, cuda, cuda:1 (or another number) or mps, got '
                          f'{str(device)!r}') from None
    if not _works(found):
        raise DeviceError(f'device {str(device)!r} cannot be used: {_reason(found)}; write cpu, or auto for the best '
                          'one of this machine')
    return found


def _works(device: torch.device) -> bool:
    if device.type == 'cuda':
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == 'mps':
        return torch.backends.mps.is_available()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError):  # how torch says that a build lacks a device depends on it
        return False
    return True


def _reason(device: torch.device) -> str:
    if device.type == 'cuda' and torch.cuda.is_available():
        return f'there are {torch.cuda.device_count()} CUDA devices, counted from 0'
    if device.type == 'cuda' and torch.version.cuda is None and torch.version.hip is None:
        return f'this torch ({torch.__version__}) is a build for the CPU'
    return f'torch finds no {device.type.upper()} device on this machine'
