"""Pickles opened without running code: plain values and arrays of plain numbers, checked before anything is made.

A list of harmless names is not enough. `numpy.dtype` is one, and a pickle may give it a state that makes an array read
memory of the pickle's choice. So no name leads to the object itself: each leads to a stand-in here that checks what it
is given, accepts numbers only (no fields, no objects), and leaves an array behind.
"""
from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


class _Dtype:
    """What stands for a `numpy.dtype` while a pickle is read: numbers only."""

    __slots__ = ('value', )

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r'[<>|=]?[biufc]\d{1,2}', code):
            raise pickle.UnpicklingError(f'it holds an array of {code!r}; only numbers are read')
        self.value = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ('<', '>', '|', '=') or \
                any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError('it holds an array of another type than numbers')
        if state[1] in '<>':
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """What stands for an array while a pickle is read; `without_stand_ins` puts the array in its place."""

    __slots__ = ('value', )

    def __init__(self, kind: object = None, shape: object = None, code: object = None) -> None:
        self.value = np.zeros(0)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError('it holds an array of an unknown layout')
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, 'F' if fortran else 'C')


def _array(content: object, dtype: object, shape: object, order: object = 'C') -> np.ndarray:
    """An array of its own from bytes; NumPy compares their number with the shape."""
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray) or not isinstance(shape, tuple) or \
            not all(isinstance(size, int) and size >= 0 for size in shape):
        raise pickle.UnpicklingError('it holds an array without bytes, type and shape')
    return np.frombuffer(content, dtype.value).reshape(shape, order='F' if order == 'F' else 'C').copy()


class _Call:
    """A function that a pickle may call; nothing can be set on it."""

    __slots__ = ('function', )

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)


def _frombuffer(content: object, dtype: object, shape: object, order: object = 'C') -> np.ndarray:
    return _array(content, dtype, shape, order)


def _scalar(dtype: object, content: object = b'') -> object:
    return _array(content, dtype, (1, ))[0]


def _encoded(text: object, encoding: object = 'latin1') -> bytes:
    """Bytes as older pickles spell them."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise pickle.UnpicklingError(f'it encodes by {encoding!r}')
    return text.encode('latin1')


_CORES = ('numpy.core', 'numpy._core')  # NumPy 1 and 2 name the same functions by different modules
ALLOWED: dict[str, Any] = {
    **{f'{core}.multiarray._reconstruct': _Call(_Array) for core in _CORES},
    **{f'{core}.multiarray.scalar': _Call(_scalar) for core in _CORES},
    **{f'{core}.numeric._frombuffer': _Call(_frombuffer) for core in _CORES},
    'numpy.ndarray': None, 'numpy.dtype': _Call(_Dtype), '_codecs.encode': _Call(_encoded)}
"""What a pickle may name, and what it gets for it."""


def torch_globals() -> list[Any]:
    """`ALLOWED` as `torch.serialization.safe_globals` takes it, with the classes whose state it may set."""
    # torch compares the class of what it gives a state to with this list, and a class has a callable name only
    named = [(value if callable(value) else _Array, name) for name, value in ALLOWED.items()]
    return [*named, (_Array, f'{__name__}._Array'), (_Dtype, f'{__name__}._Dtype')]


class _NumbersOnly(pickle._Unpickler):  # in Python, since the one in C takes any number of memo entries as memory
    """Plain values and arrays of numbers; anything else is refused."""

    stack: list[Any]

    dispatch = {code: read for code, read in pickle._Unpickler.dispatch.items()
                if code not in b''.join((pickle.OBJ, pickle.INST, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID,
                                         pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4))}

    def find_class(self, module: str, name: str) -> Any:
        if f'{module}.{name}' not in ALLOWED:
            raise pickle.UnpicklingError(f'it holds {module}.{name}, and loading that can run code')
        return ALLOWED[f'{module}.{name}']

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _Dtype):
            raise pickle.UnpicklingError(f'it gives a {type(self.stack[-1]).__name__} a state')
        self.stack[-1].__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]


def loads(content: bytes) -> object:
    """What a pickle of plain values and arrays of numbers holds.

    Raises:
        pickle.UnpicklingError: it names anything else. Damaged pickles raise errors of every kind; see `reading`.
    """
    return without_stand_ins(_NumbersOnly(io.BytesIO(content)).load())


def without_stand_ins(content: Any) -> Any:
    """The same lists, dictionaries and tuples with the arrays in the place of what stood for them."""
    seen: set[int] = set()

    def plain(value: Any) -> Any:
        if isinstance(value, _Array | _Dtype):
            return value.value
        if type(value) is tuple:
            return tuple(plain(entry) for entry in value)
        if isinstance(value, list | dict) and id(value) not in seen:
            seen.add(id(value))
            places: Iterable = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
            for place, entry in places:
                value[place] = plain(entry)
        return value

    return plain(content)
