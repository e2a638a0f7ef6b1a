"""Files from the network, in pieces: an interrupted download goes on where it stopped."""
from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from mmengine.logging import print_log

_CHUNK = 1 << 20


def offline() -> bool:
    """Whether `FROZENMM_OFFLINE` forbids to ask the network."""
    return os.environ.get('FROZENMM_OFFLINE', '') not in ('', '0')


def fetch(url: str, part: Path, *, title: str) -> None:
    """Fetch an address into a file; what the file holds already is not fetched again.

    Args:
        url: the address.
        part: the file; a name of its own, to be renamed by the caller when it is complete and checked.
        title: what the log calls the file.

    Raises:
        OSError: the address cannot be reached (`urllib.error.URLError`), or the connection ended too early; call again
            to go on.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the part is the whole file already
            return
        raise
    with response, part.open('ab' if response.status == 206 else 'wb') as out:
        done = have if response.status == 206 else 0
        total = done + int(response.headers.get('Content-Length') or 0)
        start = last = time.monotonic()
        first = done
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            if time.monotonic() - last > 5:
                last = time.monotonic()
                speed = (done - first) / (last - start)
                eta = f', {(total - done) / speed:.0f} s left' if total > done else ''
                print_log(f'{title}: {done >> 20} of {total >> 20} MB{eta}', logger='current')
        if total and done < total:
            raise OSError(f'the connection ended after {done} of {total} bytes; call again to go on')


def file_digest(path: Path, algorithm: str = 'sha256') -> str:
    """Hexadecimal digest of a file, by an algorithm of `hashlib`."""
    digest = hashlib.new(algorithm)
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
