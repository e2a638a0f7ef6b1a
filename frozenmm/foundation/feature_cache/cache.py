"""A folder of frozen features that several processes fill and read at the same time.

Layout: `recipe.json` (what the features are of), `shards/*.safetensors`, `index/*.jsonl` (one line per shard). Every
process writes shards and an index of its own and appends a line when a shard is complete, so nobody waits for anybody,
and a process that dies loses the shard that it was collecting and nothing else.
"""
from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from mmengine.dist import get_rank
from mmengine.logging import print_log
from torch import Tensor

from frozenmm.compat.files import FULL, write_whole
from frozenmm.errors import UserError, reading
from frozenmm.foundation.feature_cache.recipe import claim_folder
from frozenmm.foundation.feature_cache.shards import Shard, num_bytes, shard_content

_OPEN_SHARDS = 1024  # mapped, not held open: reading in random order meets them all
_SECONDS_BETWEEN_LOOKS = 5.0


class CacheFull(UserError, OSError):
    """The disk or the quota of a feature cache has no room for another shard; what is stored stays."""


class FeatureCache:
    """Named tensors of images by key, on disk.

    Args:
        folder: the folder; made where it is missing.
        recipe: see `recipe_of`; a folder holds features of one recipe.
        quota: bytes that the shards of the folder may take.
        shard_bytes: entries are collected up to this size and then written as one shard.

    Attributes:
        damaged: shards that cannot be used, by name, with the reason; their entries count as missing.

    Raises:
        UserError: the folder belongs to another recipe; sizes that are not positive.
    """

    def __init__(self, folder: str | Path, recipe: Mapping[str, object], *, quota: int = 50 * 2**30,
                 shard_bytes: int = 64 * 2**20) -> None:
        if quota <= 0 or shard_bytes <= 0:
            raise UserError(f'quota and shard size must be positive, got {quota} and {shard_bytes} bytes')
        self.folder = Path(folder).expanduser()
        self.recipe = dict(recipe)
        self.quota = quota
        self.shard_bytes = shard_bytes
        self.damaged: dict[str, str] = {}
        claim_folder(self.folder, self.recipe)
        for name in 'shards', 'index':
            (self.folder / name).mkdir(exist_ok=True)
        self._places: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._open: OrderedDict[str, Shard] = OrderedDict()
        self._read_up_to: dict[str, int] = {}
        self._pending: dict[str, dict[str, Tensor]] = {}
        self._pending_bytes = self._written = 0
        self._lock: IO | None = None
        self._owner = os.getpid()
        self._writer = f'rank{get_rank()}-{time.time_ns():x}-{self._owner}'
        self._looked = time.monotonic()
        self.refresh()
        self._adopt()

    def __deepcopy__(self, memo: dict) -> FeatureCache:
        """Copies of a model share the cache as they share the network."""
        return self

    def __del__(self) -> None:
        if getattr(self, '_pending', None):
            self.close()

    def __len__(self) -> int:
        return len(self._places) + len(self._pending)

    def __contains__(self, key: str) -> bool:
        return key in self._pending or key in self._places

    @property
    def size(self) -> int:
        """Bytes of all complete shards."""
        return sum(self._sizes.values())

    @property
    def shards(self) -> list[str]:
        """Names of the usable shards."""
        return list(self._sizes)

    def path(self, shard: str) -> Path:
        """The file of a shard."""
        return self.folder / 'shards' / shard

    def shard_of(self, key: str) -> str | None:
        """The shard that an entry is read from; None if it is in no complete one."""
        return self._places.get(key)

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of an entry, backed by its file; None if it is missing."""
        if key in self._pending:
            return self._pending[key]
        if key not in self._places and time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self.refresh()
        shard = self._places.get(key)
        if shard is None:
            return None
        try:
            return self._opened(shard).tensors(key)
        except UserError as error:
            self._drop(shard, str(error))
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Store an entry; it can be read at once and is on disk when its shard is full, or after `flush`.

        Raises:
            CacheFull: no room; entries of complete shards stay, those of the shard being written are given up.
        """
        if key in self:
            return
        self._pending[key] = dict(tensors)
        self._pending_bytes += num_bytes(tensors)
        if self._pending_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected as a shard.

        Raises:
            CacheFull: see `put`.
        """
        if not self._pending or os.getpid() != self._owner:  # a forked child must not write its parent's entries
            return
        entries, size = self._pending, self._pending_bytes
        self._pending, self._pending_bytes = {}, 0
        self._require_room(size)
        self._hold_lock()
        name = f'{self._writer}-{self._written:05d}.safetensors'
        content = shard_content(entries)
        line = json.dumps({'shard': name, 'bytes': len(content), 'keys': list(entries)}) + '\n'
        try:
            write_whole(self.path(name), content, durable=True)
            self._append(line)
        except OSError as error:
            if error.errno in FULL:
                raise CacheFull(self._no_room(len(content), os.strerror(error.errno or errno.ENOSPC))) from None
            raise
        self._written += 1
        self._sizes[name] = len(content)
        self._places.update(dict.fromkeys(entries, name))

    def close(self) -> None:
        """Write what is left and let others prune the folder."""
        try:
            self.flush()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def refresh(self) -> None:
        """Take in the shards that other processes have completed."""
        self._looked = time.monotonic()
        for path in sorted((self.folder / 'index').glob('*.jsonl')):
            for record in self._new_records(path):
                self._take(*record)

    def entries(self, shard: str) -> Iterator[tuple[str, dict[str, Tensor], int]]:
        """Key, tensors and recorded checksum of everything in a shard.

        Raises:
            UserError: the shard is truncated or damaged.
        """
        opened = self._opened(shard)
        for key, expected in opened.checksums.items():
            yield key, opened.tensors(key), expected

    def forget(self, shard: str) -> None:
        """Stop using a shard that is about to be deleted."""
        self._open.pop(shard, None)
        self._sizes.pop(shard, None)
        self._places = {key: place for key, place in self._places.items() if place != shard}

    def _new_records(self, path: Path) -> Iterator[tuple[str, int, list[str]]]:
        """Shard, bytes and keys of every new line of an index.

        A line without its end is being written, or its writer died.
        """
        start = self._read_up_to.get(path.name, 0)
        with path.open('rb') as file:
            file.seek(start)
            content = file.read()
        complete = content[:content.rfind(b'\n') + 1]
        self._read_up_to[path.name] = start + len(complete)
        for line in complete.splitlines():
            try:
                with reading(f'a line of {path.name} in the feature cache {self.folder}', 'an entry of its index',
                             'what it listed is read from the shards themselves at the next start'):
                    found = _record(json.loads(line))
            except UserError as error:
                self._warn(str(error))
            else:
                yield found

    def _take(self, name: str, size: int, keys: list[str]) -> None:
        if name in self._sizes or name in self.damaged:
            return
        try:
            found = self.path(name).stat().st_size
        except FileNotFoundError:  # pruned
            return
        if found != size:
            self._drop(name, f'{name} is truncated: {found:,} of {size:,} bytes')
            return
        self._sizes[name] = size
        self._places.update(dict.fromkeys(keys, name))

    def _adopt(self) -> None:
        """Shards that are complete but in no index: their writer died between the two."""
        for path in sorted((self.folder / 'shards').glob('[!.]*.safetensors')):  # not those being written
            if path.name not in self._sizes and path.name not in self.damaged:
                try:
                    keys = list(self._opened(path.name).checksums)
                except UserError as error:
                    self._drop(path.name, str(error))
                else:
                    self._take(path.name, path.stat().st_size, keys)

    def _opened(self, name: str) -> Shard:
        shard = self._open.get(name)
        if shard is None:
            shard = self._open[name] = Shard(self.path(name))
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(name)
        return shard

    def _drop(self, name: str, reason: str) -> None:
        self.damaged[name] = reason
        self.forget(name)
        self._warn(f'feature cache {self.folder}: {reason}; its entries are computed again. Delete it with '
                   'tools/cache_features.py CONFIG --prune')

    def _require_room(self, size: int) -> None:
        self.refresh()
        if self.size + size > self.quota:
            raise CacheFull(self._no_room(size, f'its quota is {self.quota / 2**20:,.1f} MB, of which '
                                                              f'{self.size / 2**20:,.1f} MB are used'))

    def _no_room(self, size: int, reason: str) -> str:
        free = shutil.disk_usage(self.folder).free
        return (f'the feature cache {self.folder.absolute()} has no room for a shard of {size / 2**20:,.1f} MB '
                f'({reason}; the disk has {free / 2**20:,.1f} MB free). {len(self._places)} images are stored and '
                'stay; make room (--prune), raise the quota, or move the folder, and run the same command again')

    def _append(self, line: str) -> None:
        """One line at the end of this process's index, on disk when this returns."""
        with (self.folder / 'index' / f'{self._writer}.jsonl').open('ab') as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def _hold_lock(self) -> None:
        """Show that somebody writes: pruning waits for that."""
        if self._lock is None:
            self._lock = (self.folder / 'lock').open('w')
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    @staticmethod
    def _warn(message: str) -> None:
        print_log(message, logger='current', level=logging.WARNING)


def _record(content: dict) -> tuple[str, int, list[str]]:
    """Shard, bytes and keys of one line of an index."""
    if not re.fullmatch(r'[\w-][\w.-]*\.safetensors', content['shard']):
        raise ValueError(f'{content["shard"]!r} is no name of a shard')
    return content['shard'], int(content['bytes']), [str(key) for key in content['keys']]
