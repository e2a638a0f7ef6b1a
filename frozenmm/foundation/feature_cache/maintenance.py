"""Checking a feature cache, and throwing away what nobody needs."""
from __future__ import annotations

import fcntl
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from frozenmm.errors import UserError
from frozenmm.foundation.feature_cache.cache import FeatureCache
from frozenmm.foundation.feature_cache.shards import checksum


@dataclass
class Pruned:
    """What pruning did: entries kept, entries and shards thrown away, bytes of the folder before and after."""

    kept: int = 0
    dropped: int = 0
    damaged: int = 0
    before: int = 0
    after: int = 0


def verify_cache(cache: FeatureCache, progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
    """Read every entry and compare its checksum.

    Args:
        cache: the cache.
        progress: called with the number of shards done and their total.

    Returns:
        Damaged shards by name, with the reason; empty if all is well.
    """
    problems = dict(cache.damaged)
    names = cache.shards
    for done, name in enumerate(names, start=1):
        try:
            wrong = [key for key, tensors, expected in cache.entries(name) if checksum(tensors) != expected]
        except UserError as error:
            problems[name] = str(error)
        else:
            if wrong:
                problems[name] = f'{name}: {len(wrong)} entries do not match their checksum, {wrong[0]} for one'
        if progress is not None:
            progress(done, len(names))
    return problems


def prune_cache(cache: FeatureCache, needed: Collection[str] | None = None) -> Pruned:
    """Delete damaged shards, entries that stand twice or are not needed, and files that dead processes left.

    Shards that lose some of their entries are written anew before the old ones go, so a stop in between loses nothing.

    Args:
        cache: the cache; must be this process's only one on the folder.
        needed: keys to keep, all by default.

    Raises:
        UserError: another process is writing to the folder.
    """
    cache.close()
    with (cache.folder / 'lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'another process is writing to the feature cache {cache.folder.absolute()}; prune when '
                             'it has finished') from None
        problems = verify_cache(cache)
    # from here on the rewritten shards take the lock as any writer does
    result = Pruned(damaged=len(problems), before=_bytes(cache.folder))
    quota, cache.quota = cache.quota, 2**62  # old and new shards exist side by side for a moment
    stale = [cache.path(name) for name in problems]
    for name in cache.shards:
        if name in problems:
            cache.forget(name)
        elif _rewritten(cache, name, needed, result):
            stale.append(cache.path(name))
    cache.close()
    cache.quota = quota
    for path in [*stale, *(cache.folder / 'shards').glob('.*.part.*')]:
        with suppress(FileNotFoundError):
            path.unlink()
    cache.damaged.clear()
    result.after = _bytes(cache.folder)
    return result


def _rewritten(cache: FeatureCache, name: str, needed: Collection[str] | None, result: Pruned) -> bool:
    """Store what a shard's needed entries are once more, if it has others too; whether it has."""
    entries = list(cache.entries(name))
    keep = {key: tensors for key, tensors, _ in entries
            if cache.shard_of(key) == name and (needed is None or key in needed)}
    result.kept += len(keep)
    result.dropped += len(entries) - len(keep)
    if len(keep) == len(entries):
        return False
    cache.forget(name)
    for key, tensors in keep.items():
        cache.put(key, tensors)
    return True


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / 'shards').iterdir())
