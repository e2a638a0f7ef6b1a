"""What a state dict says about itself beside its weights: JSON in a uint8 tensor.

A tensor, because mmengine moves every entry of a state dict to the CPU.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from frozenmm.errors import reading


def as_record(content: Mapping[str, object], *, multiple: int = 1) -> Tensor:
    """Plain values as a uint8 tensor (N,), N padded with blanks to a multiple.

    >>> read_record(as_record(dict(compat=True), multiple=64), 'decoder.compat_record')
    {'compat': True}
    """
    text = json.dumps(content).encode()
    return torch.frombuffer(bytearray(text.ljust(-(-len(text) // multiple) * multiple)), dtype=torch.uint8)


def read_record(record: Tensor, key: str) -> dict[str, Any]:
    """The content of a record.

    Args:
        record: (N,) uint8.
        key: its name in the state dict, for errors.

    Raises:
        UnreadableFile: it is none.
    """
    with reading(f'the entry {key!r} of the checkpoint', 'a record of what the weights were made with'):
        return dict(json.loads(bytes(record.cpu().tolist()).decode()))
