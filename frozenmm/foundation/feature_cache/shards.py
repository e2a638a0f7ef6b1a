"""Shards: safetensors files that hold the features of many images and say themselves what is in them."""
from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frozenmm.compat import require
from frozenmm.errors import reading
from frozenmm.structures import TowerFeatures

STORED_TYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16, 'int8': torch.int8}
_EXACT, _SCALE = ('valid', 'region'), 'scale.'
"""What is never rounded: where the maps lie. Scales of 8-bit numbers stand beside them under this prefix."""


def to_tensors(features: TowerFeatures, store: str) -> dict[str, Tensor]:
    """Named CPU tensors of one image's features (B = 1); floating maps, taps and tokens in the stored type.

    With `'int8'` every channel of a map or sequence has its own scale, its largest magnitude / 127.
    """
    stored: dict[str, Tensor] = {}
    for name, value in features.tensors().items():
        value = value.detach().cpu()
        if store == 'int8' and name not in _EXACT:
            value = value.float()
            across = [0, 2, 3] if value.dim() == 4 else list(range(value.dim() - 1))
            scale = (value.abs().amax(across, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
            stored[f'{_SCALE}{name}'] = scale
            value = (value / scale).round()
        stored[name] = (value if name in _EXACT else value.to(STORED_TYPES[store])).contiguous()
    return stored


def from_tensors(tensors: Mapping[str, Tensor], maps: Iterable[str]) -> TowerFeatures:
    """The features of named tensors, with the maps in the order given."""
    ordered = [*(f'maps.{name}' for name in maps),
               *(name for name in tensors if not name.startswith(('maps.', _SCALE)))]
    with reading('an entry of the feature cache', 'features', 'delete it: tools/cache_features.py CONFIG --prune'):
        return TowerFeatures.of({name: _exact(tensors[name], tensors.get(f'{_SCALE}{name}')) for name in ordered})


def _exact(value: Tensor, scale: Tensor | None) -> Tensor:
    if scale is not None:
        return value.float() * scale
    return value.float() if value.is_floating_point() else value


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the numbers themselves."""
    return sum(value.nbytes for value in tensors.values())


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over names, shapes and content."""
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f'{name}{tuple(tensor.shape)}'.encode(), value)
        value = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data, value)
    return value


def shard_content(entries: Mapping[str, Mapping[str, Tensor]]) -> bytes:
    """A shard with these entries, as the bytes of its file."""
    save = require('safetensors.torch', 'the feature cache').save
    flat = {f'{key}/{name}': value for key, tensors in entries.items() for name, value in tensors.items()}
    return save(flat, {'entries': json.dumps({key: checksum(tensors) for key, tensors in entries.items()})})


class Shard:
    """An open shard, mapped into memory.

    Raises:
        UnreadableFile: a truncated or damaged file.
    """

    def __init__(self, path: Path) -> None:
        safetensors = require('safetensors', 'the feature cache')
        self.name = path.name
        with self._reading():
            self._file: Any = safetensors.safe_open(path, 'pt')
            self.checksums: dict[str, int] = dict(json.loads((self._file.metadata() or {})['entries']))
            self._names: dict[str, list[str]] = {key: [] for key in self.checksums}
            for name in self._file.keys():
                key, _, rest = name.partition('/')
                self._names.setdefault(key, []).append(rest)

    def tensors(self, key: str) -> dict[str, Tensor]:
        """The tensors of an entry, backed by the file."""
        with self._reading():
            return {name: self._file.get_tensor(f'{key}/{name}') for name in self._names[key]}

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self.name, 'a shard of a feature cache', 'it is truncated or damaged')
