"""The archives that data sets come in: found, fetched where that is allowed, checked and unpacked."""
from __future__ import annotations

import errno
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from mmengine.logging import print_log

from frozenmm.compat.fetch import fetch, file_digest, offline
from frozenmm.compat.files import whole_file
from frozenmm.compat.image_files import open_picture
from frozenmm.datasets.progress import Progress
from frozenmm.errors import MissingFile, UnreadableFile, UserError, reading

_LARGEST_RATIO, _ALWAYS_ALLOWED = 200, 1 << 30


@dataclass(frozen=True)
class SourceFile:
    """An archive of a data set.

    Attributes:
        name: file name, or a pattern of it where the publisher gives everybody another one.
        size: for people, as far as it is known.
        page: where it comes from.
        gives: what unpacking makes, relative to the data set's folder; where all of it is there, the archive is not
            needed. A `{split}` in it stands for each split asked for.
        url: address for fetching; empty where one must register first.
        digest: `'md5:...'`, `'sha1:...'` or `'sha256:...'` of the published file; empty where none is published. Every
            zip archive carries checksums of its own, which unpacking compares.
        into: folder to unpack into, relative to the data set's folder.
        split: the only split that needs it; empty for all.
    """

    name: str
    size: str
    page: str
    gives: tuple[str, ...]
    url: str = ''
    digest: str = ''
    into: str = '.'
    split: str = ''

    def needed(self, splits: Sequence[str]) -> bool:
        """Whether these splits need the archive."""
        return not self.split or self.split in splits

    def results(self, folder: Path, splits: Sequence[str]) -> list[Path]:
        """What unpacking makes for these splits."""
        # a set whose folder is not there yet may share a neighbour's: `new/../coco` exists for `normpath` only
        return [Path(os.path.normpath(folder / name.format(split=split))) for name in self.gives
                for split in (splits if '{split}' in name else splits[:1])]

    def unpacked(self, folder: Path, splits: Sequence[str]) -> bool:
        """Whether everything is there, and no unpacking was interrupted."""
        target = Path(os.path.normpath(folder / self.into))
        unfinished = any(target.glob(f'.{self.name}.unpacking')) if target.is_dir() else False
        return not unfinished and all(path.exists() for path in self.results(folder, splits))


def obtain(files: Sequence[SourceFile], folder: Path, *, splits: Sequence[str], archives: Sequence[Path],
           download: bool, command: str) -> None:
    """Make sure that a data set's files are unpacked.

    Args:
        files: the archives.
        folder: the data set's folder.
        splits: the splits asked for.
        archives: folders where archives may lie; fetched ones go into the first.
        download: ask the network for what is missing.
        command: what to run again, for the error.

    Raises:
        MissingFile: archives are missing; the text names all of them with size and origin.
        UserError: an archive is damaged, or not the published one.
    """
    missing: list[str] = []
    for file in files:
        if not file.needed(splits) or file.unpacked(folder, splits):
            continue
        archive, reason = _archive(file, archives, download)
        if archive is None:
            missing.append(f'  {file.name} ({file.size}) from {file.page}{reason}')
            continue
        _check_digest(archive, file)
        unpack(archive, Path(os.path.normpath(folder / file.into)))
        lacking = [path for path in file.results(folder, splits) if not path.exists()]
        if lacking:
            raise UserError(f'{archive} was unpacked, but {lacking[0]} is still missing; is it {file.name} from '
                             f'{file.page}?')
    if missing:
        raise MissingFile(f'{folder} lacks data:\n' + '\n'.join(missing) +
                                f'\nPut what is missing into {archives[0]} (or unpack it in {folder} yourself), then '
                                f'run: {command}')


def obtain_pictures(addresses: Mapping[Path, str], *, download: bool, command: str) -> None:
    """Fetch pictures that are published one by one; those that are there already are left alone.

    Args:
        addresses: path -> address.
        download: ask the network for what is missing.
        command: what to run again, for the error.

    Raises:
        MissingFile: some are missing; the text names their number, the first one and why.
    """
    missing = {path: url for path, url in addresses.items() if not path.is_file()}
    progress = Progress(len(missing), unit='pictures')
    for count, (path, url) in enumerate(missing.items()):
        problem = 'fetching is switched off' if not download or offline() else ''
        if not problem:
            part = path.with_name(f'{path.name}.part')
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                fetch(url, part, title=path.name)
                with reading(part, 'a picture'), open_picture(part) as picture:
                    picture.load()
                part.replace(path)
            except UnreadableFile:
                part.unlink(missing_ok=True)
                problem = 'the address gave no picture'
            except OSError as error:
                problem = f'fetching it failed: {error}'
        if problem:
            raise MissingFile(f'{path.parent} lacks {len(missing) - count} pictures, first {path.name} from {url} '
                              f'({problem}). Put them there, or run again: {command}')
        progress.add(1, path.name)


def _archive(file: SourceFile, archives: Sequence[Path], download: bool) -> tuple[Path | None, str]:
    """The archive, found or fetched; else None and why not."""
    for place in archives:
        for path in sorted(place.glob(file.name)) if place.is_dir() else ():
            if path.is_file():
                return path, ''
    if not file.url:
        return None, ' (registration is needed, so it cannot be fetched from here)'
    if not download or offline():
        return None, f' ({file.url}; not fetched, because fetching is switched off)'
    target = archives[0] / file.name
    part = target.with_name(f'{target.name}.part')
    part.parent.mkdir(parents=True, exist_ok=True)
    print_log(f'fetching {file.url} ({file.size})', logger='current')
    try:
        fetch(file.url, part, title=file.name)
    except OSError as error:
        return None, f' ({file.url}; fetching it failed: {error})'
    _check_fetched(part, file)
    part.replace(target)
    return target, ''


def _check_fetched(part: Path, file: SourceFile) -> None:
    """Refuse what is no whole archive before it gets an archive's name.

    Raises:
        UserError: another digest than the published one, or no archive at all; it is deleted.
    """
    try:
        _check_digest(part, file)
        if not (zipfile.is_zipfile(part) if file.name.endswith('.zip') else tarfile.is_tarfile(part)):
            raise UserError(f'{file.url} gave no whole archive (perhaps a page that says why); it was deleted, try '
                            'again')
    except UserError:
        part.unlink(missing_ok=True)
        raise


def _check_digest(archive: Path, file: SourceFile) -> None:
    if not file.digest:
        return
    algorithm, _, published = file.digest.partition(':')
    found = file_digest(archive, algorithm)
    if found != published:
        raise UserError(f'{archive} has the {algorithm.upper()} {found}, but {published} is published for '
                         f'{file.name}; it is incomplete or another file. Delete it and get it again')


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip or tar archive; files that are there already, with their size, are left alone.

    A mark in the target folder says that unpacking has begun, until it is complete; every file appears whole.

    Raises:
        UserError: the archive is damaged, or would write outside of the folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    mark = target / f'.{archive.name}.unpacking'
    mark.touch()
    print_log(f'unpacking {archive} into {target}', logger='current')
    with _reading_archive(archive):
        members = _zip_members(archive) if archive.suffix == '.zip' else _tar_members(archive)
        progress: Progress | None = None
        room = _Room(archive, target)
        for name, size, total, opened in members:
            room.take(size)
            progress = progress or Progress(total, unit='files')
            path = _inside(target, name, archive)
            if not (path.is_file() and path.stat().st_size == size):
                _write(path, opened)
            progress.add(1, path.name)
    mark.unlink()


_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EMFILE}
"""What is no fault of the archive."""


@contextmanager
def _reading_archive(archive: Path) -> Iterator[None]:
    try:
        with reading(archive, 'an archive', 'it may be damaged or incomplete; delete it and get it again'):
            yield
    except UnreadableFile as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _OF_THE_DISK:
            raise cause from None
        raise


class _Room:
    """What an archive may become: far more than its size is no data set, and more than the disk has cannot be.

    Args:
        archive: the archive.
        target: the folder that it is unpacked into.
    """

    def __init__(self, archive: Path, target: Path) -> None:
        self.archive, self.used = archive, 0
        self.largest = max(_LARGEST_RATIO * archive.stat().st_size, _ALWAYS_ALLOWED)
        self.free = shutil.disk_usage(target).free
        if archive.suffix == '.zip':
            with zipfile.ZipFile(archive) as content:
                total = sum(info.file_size for info in content.infolist())
            self.take(total)
            self.used = 0

    def take(self, size: int) -> None:
        """Count a file.

        Raises:
            UserError: too much.
        """
        self.used += size
        if self.used > self.largest:
            raise UserError(f'{self.archive} unpacks to more than {self.largest / 2**30:,.1f} GB, {_LARGEST_RATIO} '
                            'times its size; that is no data set, and it is refused')
        if self.used > self.free and self.archive.suffix == '.zip':
            raise UserError(f'{self.archive} unpacks to {self.used / 2**30:,.1f} GB, but the disk has '
                            f'{self.free / 2**30:,.1f} GB free; make room')


_Member = tuple[str, int, int, Callable[[], IO[bytes]]]


def _zip_members(archive: Path) -> Iterator[_Member]:
    """Name, size, number of all files, and what opens it, of every file; without macOS's extras."""
    with zipfile.ZipFile(archive) as content:
        files = [info for info in content.infolist() if not info.is_dir() and not info.filename.startswith('__MACOSX/')]
        if any(info.flag_bits & 1 for info in files):
            raise UserError(f'{archive} is encrypted; unpack it yourself with its password, and run the command again')
        for info in files:
            yield info.filename, info.file_size, len(files), partial(content.open, info)


def _tar_members(archive: Path) -> Iterator[_Member]:
    """The same of a tar archive, which does not know how many files it holds."""
    with tarfile.open(archive) as content:
        for info in content:
            if info.isfile():
                yield info.name, info.size, 0, partial(_member, content, info)
            elif not info.isdir():
                raise UserError(f'{archive} holds {info.name!r}, which is neither a file nor a folder; refused')


def _member(content: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    opened = content.extractfile(info)
    if opened is None:
        raise ValueError(f'{info.name!r} is no file')
    return opened


def _inside(target: Path, name: str, archive: Path) -> Path:
    parts = PurePosixPath(name).parts
    if PurePosixPath(name).is_absolute() or '..' in parts or '\\' in name:
        raise UserError(f'{archive} holds {name!r}, which lies outside of the folder it is unpacked into; refused')
    return target.joinpath(*parts)


def _write(path: Path, opened: Callable[[], IO[bytes]]) -> None:
    with opened() as source, whole_file(path) as part, part.open('wb') as out:
        shutil.copyfileobj(source, out, 1 << 20)
