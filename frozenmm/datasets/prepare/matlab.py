"""Matrices of numbers out of MATLAB files of version 5, as PASCAL Context's label maps are.

Only plain numeric matrices are read, and every length is compared with the bytes that are there: scipy's reader, which
knows the whole format, follows lengths of a damaged file outside of its memory.
Source: MathWorks, "MAT-File Format", chapter 1.
"""
from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import islice

import numpy as np

_HEADER, _TAG = 128, 8
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
"""Type of stored numbers -> NumPy's."""
_CLASSES = {6: 'f8', 7: 'f4', 8: 'i1', 9: 'u1', 10: 'i2', 11: 'u2', 12: 'i4', 13: 'u4', 14: 'i8', 15: 'u8'}
"""Class of a matrix -> the type of its numbers; they may be stored in a smaller one."""
LARGEST = 1 << 28
"""Bytes that a compressed element may become."""


def read_matrix(content: bytes, name: str) -> np.ndarray:
    """A numeric matrix.

    Args:
        content: of the file.
        name: of the variable.

    Returns:
        Its values, in the shape of the file.

    Raises:
        ValueError: another format, no such variable, a length beyond the end, or no real numeric matrix.
    """
    if len(content) < _HEADER or content[126:128] not in (b'IM', b'MI'):
        raise ValueError('it is no MATLAB file of version 5')
    order = '<' if content[126:128] == b'IM' else '>'
    for kind, body in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            kind, body = _first(_inflated(body), 1, order)[0]
        if kind == _MATRIX:
            (_, flags), (_, shape), (_, title), stored = _first(body, 4, order)
            if title.rstrip(b'\0').decode('latin-1') == name:
                return _values(flags, shape, stored, order)
    raise ValueError(f'it has no variable {name!r}')


def _first(content: bytes, count: int, order: str) -> list[tuple[int, bytes]]:
    found = list(islice(_elements(content, order), count))
    if len(found) < count:
        raise ValueError('it ends where more was expected')
    return found


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of every element; those of up to four bytes stand in their own tag."""
    place = 0
    while place + _TAG <= len(content):
        kind, size = struct.unpack_from(f'{order}II', content, place)
        if kind >> 16:
            size, kind = kind >> 16, kind & 0xffff
            start, end = place + 4, place + _TAG
            if size > 4:
                raise ValueError('a small element says that it is large')
        else:
            start = place + _TAG
            end = start + size if kind == _COMPRESSED else start + -(-size // 8) * 8
            if start + size > len(content):
                raise ValueError('an element ends after the end of the file')
        yield kind, content[start:start + size]
        place = end


def _inflated(body: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(body, LARGEST)
    if unpacker.unconsumed_tail:
        raise ValueError(f'an element unpacks to more than {LARGEST >> 20} MiB')
    return content


def _values(flags: bytes, shape: bytes, stored: tuple[int, bytes], order: str) -> np.ndarray:
    flag_bits, = struct.unpack_from(f'{order}I', flags)
    kind, body = stored
    if flag_bits & 0xff not in _CLASSES or flag_bits & 0x800 or kind not in _NUMBERS:
        raise ValueError('it is no real matrix of numbers')
    sides = np.frombuffer(shape, f'{order}i4').astype(int)
    values = np.frombuffer(body, f'{order}{_NUMBERS[kind]}')
    if len(sides) < 2 or (sides < 0).any() or int(np.prod(sides, dtype=object)) != len(values):
        raise ValueError(f'{len(values)} numbers do not fill a matrix of {"x".join(map(str, sides))}')
    return values.astype(_CLASSES[flag_bits & 0xff]).reshape(sides, order='F')
