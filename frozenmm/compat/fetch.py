"""Files from the network, in pieces: an interrupted download goes on where it stopped.

`FROZENMM_OFFLINE=1` never asks the network. `FROZENMM_ADDRESSES=public` refuses addresses that lead, at first or by
redirection, to this machine or a private network: services that fetch what strangers name set it.
"""
from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from mmengine.logging import print_log

from frozenmm.errors import UserError

_CHUNK = 1 << 20
_SILENCE_S = 20
_SLOW_S, _SLOW_BYTES = 120, 1 << 16  # below that, a server keeps its client busy rather than serves it


@dataclass(frozen=True)
class TransferLimits:
    """What a transfer may take; None sets no limit.

    Attributes:
        seconds: from the first word to the last byte.
        size: bytes.
    """

    seconds: float | None = None
    size: int | None = None


def offline() -> bool:
    """Whether `FROZENMM_OFFLINE` forbids to ask the network."""
    return os.environ.get('FROZENMM_OFFLINE', '') not in ('', '0')


def fetch(url: str, part: Path, *, title: str, limits: TransferLimits | None = None) -> None:
    """Fetch an address into a file; what the file holds already is not fetched again, if it is of the same content.

    Args:
        url: the address.
        part: the file; a name of its own, to be renamed by the caller when it is complete and checked. What the server
            called the content stands beside it until then, in a file `.etag`.
        title: what the log calls the file.
        limits: of the transfer.

    Raises:
        OSError: the address cannot be reached or answers no HTTP, sends another part than was asked for, is too slow or
            too large, or the connection ended too early; call again to go on.
        UserError: `FROZENMM_ADDRESSES` has an unknown value.
    """
    limits = limits or TransferLimits()
    try:
        with _limited(limits.seconds) as connections:
            _transfer(url, part, title, limits, connections)
    except (http.client.HTTPException, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise OSError(f'the answer of {url} is no HTTP, or it is no address ({type(error).__name__}: '
                      f'{" ".join(str(error).split())[:200]})') from error


def _transfer(url: str, part: Path, title: str, limits: TransferLimits, connections: _Connections) -> None:
    tag_file = part.with_name(f'{part.name}.etag')
    tag = tag_file.read_text(encoding='latin1') if tag_file.is_file() else ''
    # without a tag nobody knows whether the part belongs to what the server has now
    have = part.stat().st_size if tag and part.is_file() else 0
    headers = {'Range': f'bytes={have}-', 'If-Range': tag} if have else {}
    try:
        response = connections.opener().open(urllib.request.Request(url, headers=headers), timeout=_SILENCE_S)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        whole = re.fullmatch(r'bytes \*/(\d+)', error.headers.get('Content-Range') or '')
        if whole is None or int(whole[1]) == have:  # the part is the whole file already
            return
        _forget(part)
        raise OSError(f'{part.name} had {have} bytes, but the file has {whole[1]}; call again to fetch it anew'
                      ) from None
    with response:
        done = _start(response, part, have)
        total = _total(response, done)
        if limits.size is not None and max(total, done) > limits.size:
            raise OSError(f'the file has {total >> 20} MB, more than the {limits.size >> 20} MB that are fetched')
        tag = response.headers.get('ETag') or response.headers.get('Last-Modified') or ''
        tag_file.write_text('' if tag.startswith('W/') else tag, encoding='latin1')
        with part.open('ab' if done else 'wb') as out:
            done = _copy(response, out, _Report(title, done, total), limits)
        if total and done < total:
            raise OSError(f'the connection ended after {done} of {total} bytes; call again to go on')
    tag_file.unlink(missing_ok=True)


def _start(response: Any, part: Path, have: int) -> int:
    """Where in the file the answer begins: at the part's end, or at 0 if the server sends all of it."""
    if response.status != 206:
        return 0
    begin = re.match(r'bytes (\d+)-', response.headers.get('Content-Range') or '')
    if begin is None or int(begin[1]) != have:
        _forget(part)
        raise OSError(f'asked for the bytes from {have} on, the server sent '
                      f'{response.headers.get("Content-Range") or "a part that it does not name"}; call again to fetch '
                      'the file anew')
    return have


def _total(response: Any, done: int) -> int:
    """Bytes of the whole file; 0 where the server does not say."""
    named = re.search(r'/(\d+)$', response.headers.get('Content-Range') or '')
    length = response.headers.get('Content-Length') or ''
    return int(named[1]) if named else done + int(length) if length.isdecimal() else 0


def _copy(response: Any, out: Any, report: _Report, limits: TransferLimits) -> int:
    mark, at_mark = time.monotonic(), report.done
    while chunk := response.read1(_CHUNK):  # what has come, however little, so that a trickle is noticed
        out.write(chunk)
        report.add(len(chunk))
        if limits.size is not None and report.done > limits.size:
            raise OSError(f'the file has more than the {limits.size >> 20} MB that are fetched')
        if time.monotonic() - mark > _SLOW_S:
            if report.done - at_mark < _SLOW_BYTES:
                raise OSError(f'the server sent {report.done - at_mark} bytes in {_SLOW_S} s; call again to go on')
            mark, at_mark = time.monotonic(), report.done
    return report.done


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f'{part.name}.etag').unlink(missing_ok=True)


class _Report:
    """A line every few seconds."""

    def __init__(self, title: str, done: int, total: int) -> None:
        self.title, self.done, self.total, self.first = title, done, total, done
        self.start = self.last = time.monotonic()

    def add(self, size: int) -> None:
        """Count bytes."""
        self.done += size
        now = time.monotonic()
        if now - self.last > 5:
            self.last = now
            speed = (self.done - self.first) / (now - self.start)
            eta = f', {(self.total - self.done) / speed:.0f} s left' if self.total > self.done else ''
            print_log(f'{self.title}: {self.done >> 20} of {self.total >> 20} MB{eta}', logger='current')


class _Connections:
    """Makes connections for HTTP and HTTPS, and can end them all."""

    def __init__(self) -> None:
        value = os.environ.get('FROZENMM_ADDRESSES') or 'any'
        if value not in ('any', 'public'):
            raise UserError(f'FROZENMM_ADDRESSES={value!r} is unknown; use any or public')
        self.public_only = value == 'public'
        self.sockets: list[socket.socket] = []
        self.ended = False

    def opener(self) -> urllib.request.OpenerDirector:
        """What opens addresses; it knows no files and no FTP, to which a redirection may lead."""
        opener = urllib.request.OpenerDirector()
        proxy = urllib.request.ProxyHandler({} if self.public_only else None)
        for handler in (proxy, self._handler(urllib.request.HTTPHandler, http.client.HTTPConnection, 'http'),
                        self._handler(urllib.request.HTTPSHandler, http.client.HTTPSConnection, 'https'),
                        urllib.request.HTTPRedirectHandler(), urllib.request.HTTPDefaultErrorHandler(),
                        urllib.request.HTTPErrorProcessor(), urllib.request.UnknownHandler()):
            opener.add_handler(handler)
        return opener

    def _handler(self, handler: type, connection: type, scheme: str) -> Any:
        def connect(host: str, **options: Any) -> Any:
            made = connection(host, **options)
            made._create_connection = self._socket
            return made

        made = handler()
        setattr(made, f'{scheme}_open', lambda request: made.do_open(connect, request))
        return made

    def _socket(self, address: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
        made = socket.create_connection(address, *arguments, **options)
        peer = ipaddress.ip_address(made.getpeername()[0].partition('%')[0])
        peer = getattr(peer, 'ipv4_mapped', None) or peer
        # the address that was reached is asked, not its name, which may lead elsewhere the next moment
        if self.ended or (self.public_only and not peer.is_global):
            made.close()
            raise OSError(f'{address[0]} leads to {peer}, which is no public address, and FROZENMM_ADDRESSES=public')
        self.sockets.append(made)
        return made

    def end(self) -> None:
        """End all connections; whoever reads from one gets an error."""
        self.ended = True
        for made in self.sockets:
            try:
                made.shutdown(socket.SHUT_RDWR)
            except OSError:  # ended already
                continue


@contextmanager
def _limited(seconds: float | None) -> Iterator[_Connections]:
    """Connections that end after this time, wherever the transfer stands."""
    connections = _Connections()
    timer = threading.Timer(seconds or 0, connections.end)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield connections
    except (OSError, http.client.HTTPException, ValueError) as error:
        if not connections.ended:
            raise
        raise OSError(f'it took longer than {seconds:g} s') from error
    finally:
        timer.cancel()
    if connections.ended:
        raise OSError(f'it took longer than {seconds:g} s')


def file_digest(path: Path, algorithm: str = 'sha256') -> str:
    """Hexadecimal digest of a file, by an algorithm of `hashlib`."""
    digest = hashlib.new(algorithm)
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
