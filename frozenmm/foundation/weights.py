"""Where the weights of a frozen model come from: a file, the cache folder, the official address, or a random draw.

The cache folder is `$FROZENMM_HOME/weights`, by default `~/.cache/frozenmm/weights`. `FROZENMM_OFFLINE=1` never asks
the network. `FROZENMM_MIRROR=https://host/folder` is asked for a file of the same name before the official address.
"""
from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from frozenmm.compat.fetch import fetch, file_digest, offline
from frozenmm.compat.files import locked, write_whole
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.state_file import read_state
from frozenmm.foundation.state_match import load_strictly

_DIGITS = 64  # of a full SHA-256
_RANDOM = re.compile(r'random(?::(\d+))?')
M = TypeVar('M', bound=nn.Module)


@dataclass(frozen=True)
class WeightFile:
    """Published weights.

    Attributes:
        url: official address.
        megabytes: size of the file, rounded.
        license: licence of the weights.
        sha256: leading digits of the file's SHA-256, as far as they are published; empty if they are not.
        name: file name in the cache folder; the address's own by default.
    """

    url: str
    megabytes: int
    license: str
    sha256: str = ''
    name: str = ''

    @property
    def file_name(self) -> str:
        """Name in the cache folder."""
        return self.name or self.url.rsplit('/', 1)[-1]


def weights_folder() -> Path:
    """The cache folder for weights."""
    home = os.environ.get('FROZENMM_HOME')
    return (Path(home).expanduser() if home else Path.home() / '.cache' / 'frozenmm') / 'weights'


def random_seed(weights: str | Path | None) -> int | None:
    """The seed of `'random'` (0) or `'random:<seed>'`; None for anything else."""
    match = _RANDOM.fullmatch(weights) if isinstance(weights, str) else None
    return None if match is None else int(match[1] or 0)


def locate(weights: str | Path | None, file: WeightFile | None, *, name: str) -> Path:
    """The weights file of a model; fetched first if neither a path nor the cache folder gives it.

    Args:
        weights: path of a file, or None for the published weights.
        file: the published weights; None where there are none.
        name: what errors call the model.

    Raises:
        MissingFile: nothing there and no network; the text says where the file comes from, how large it is, and
            where to put it.
        UserError: no path given and no weights published, or the hash of the fetched file is wrong.
    """
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise MissingFile(f'weights of {name}: {path.absolute()} is no file; give the path of a checkpoint, '
                                    "None for the published weights, or 'random'")
        return path
    if file is None:
        raise UserError(f"{name} has no published weights; give weights='path/to/file' or weights='random'")
    path = weights_folder() / file.file_name
    if not path.is_file():
        return download(file, path, name=name)
    _compare_hash(path)
    return path


def build_network(build: Callable[[], M], weights: str | Path | None, file: WeightFile | None, *, name: str,
                  select: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None, on_meta: bool = True) -> M:
    """A network with its weights.

    Args:
        build: makes the network.
        weights: path, None for the published file, `'random'` or `'random:<seed>'` (the same draw on every machine).
        file: the published weights.
        name: what errors call the model.
        select: picks the network's part of a file and renames its keys.
        on_meta: call `build` on the meta device when the weights come from a file, so that nothing is drawn in vain.

    Raises:
        MissingFile: see `locate`.
        UserError: unreadable file, or the file of another architecture.
    """
    seed = random_seed(weights)
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()
    path = locate(weights, file, name=name)
    state = read_state(path)
    with torch.device('meta') if on_meta else nullcontext():
        network = build()
    load_strictly(network, state if select is None else select(state), name=name, source=str(path), whole=state)
    return network


def weights_key(weights: str | Path | None) -> str:
    """What identifies the choice of weights among networks that are shared."""
    if weights is None or random_seed(weights) is not None:
        return str(weights)
    return str(Path(weights).expanduser().resolve())


def weights_note(weights: str | Path | None) -> str:
    """What a tower's name says about its weights: nothing for the published ones."""
    if weights is None:
        return ''
    return f' ({weights} weights)' if random_seed(weights) is not None else f' ({Path(weights).name})'


def download(file: WeightFile, path: Path, *, name: str) -> Path:
    """Fetch a published file; an interrupted download goes on where it stopped, and only one process fetches.

    Raises:
        MissingFile: the address cannot be reached.
        UserError: the file's hash is not the published one.
    """
    help_text = (f'weights of {name} are not on this machine: {file.file_name} (about {file.megabytes} MB, licence: '
                 f'{file.license}) comes from {file.url}; download it and put it at {path}, or give its path as '
                 '`weights`')
    if offline():
        raise MissingFile(f'{help_text} (FROZENMM_OFFLINE is set, so it was not fetched)')
    part = path.with_name(path.name + '.part')
    with locked(part.with_suffix('.lock'), busy=f'another process fetches {file.file_name}; waiting for it'):
        if path.is_file():
            return path
        source = _fetch_from_first(file, part, help_text)
        found = file_digest(part)
        if not found.startswith(file.sha256):
            part.unlink()
            raise UserError(f'{source} gave a file with SHA-256 {found[:16]}..., but {file.sha256[:16]}... is '
                             'published; it was deleted, try again')
        _keep(part, path, source, opened=len(file.sha256) < _DIGITS)
        _record_hash(path, found)
    return path


def _keep(part: Path, path: Path, source: str, *, opened: bool) -> None:
    """Give a fetched file its name, when it opens: without a full hash a page of words could become the weights."""
    if opened:
        checked = part.with_name(f'.{part.name}{path.suffix}')  # readers take the kind of a file from its suffix
        part.replace(checked)
        try:
            read_state(checked)
        except UserError as error:
            checked.unlink()
            raise UserError(f'{source} gave no weights, so they were deleted: {error}') from None
        part = checked
    part.replace(path)


def _record_hash(path: Path, digest: str) -> None:
    stat = path.stat()
    write_whole(_hash_file(path), json.dumps(dict(sha256=digest, size=stat.st_size, mtime_ns=stat.st_mtime_ns)))


def _hash_file(path: Path) -> Path:
    return path.with_name(f'{path.name}.sha256')


def _compare_hash(path: Path) -> None:
    """Compare a file of the cache folder with its hash at first use; only what was touched since is read again.

    Raises:
        UserError: it is another file.
    """
    note, stat = _hash_file(path), path.stat()
    known: dict[str, Any] = {}
    if note.is_file():
        with reading(note, 'the hash of a file of weights', 'delete it'):
            known = dict(json.loads(note.read_text(encoding='utf-8')))
            if (known['size'], known['mtime_ns']) == (stat.st_size, stat.st_mtime_ns):
                return
    found, expected = file_digest(path), str(known.get('sha256', ''))
    if not found.startswith(expected):
        raise UserError(f'{path} has the SHA-256 {found[:16]}..., but {expected[:16]}... '
                        'when it was first used; it is damaged or was exchanged. '
                        f'Delete it and {note.name} to fetch it again, or give its path as `weights`')
    try:
        _record_hash(path, found)
    except OSError as error:  # a folder shared read-only
        print_log(f'the hash of {path} cannot be noted beside it ({error.strerror})', logger='current', level=10)


def _fetch_from_first(file: WeightFile, part: Path, help_text: str) -> str:
    """Fetch from the mirror, if there is one, else from the official address; returns which."""
    mirror = os.environ.get('FROZENMM_MIRROR', '').rstrip('/')
    addresses = [f'{mirror}/{file.file_name}', file.url] if mirror else [file.url]
    failures = []
    for url in addresses:
        try:
            fetch(url, part, title=file.file_name)
            return url
        except OSError as error:
            failures.append(f'{error}' if url == file.url else f'{url}: {error}')
    raise MissingFile(f'{help_text} (fetching it failed: {"; ".join(failures)})')
