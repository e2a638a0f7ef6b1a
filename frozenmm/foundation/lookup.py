"""Find a model by its name: spelling variants are accepted, misspelt names are answered with the nearest ones."""
from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import TypeVar

from frozenmm.errors import UnknownName

T = TypeVar('T')

def plain(name: str) -> str:
    """The name without case and punctuation, so that `ViT-B/32`, `vit_b_32` and `ViT-B-32` are one."""
    return ''.join(letter for letter in name.lower() if letter.isalnum())


def nearest(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """Up to `count` known names that resemble `name`, best first; the first ones known if none does."""
    known = list(known)
    by_plain = {plain(key): key for key in known}
    close = difflib.get_close_matches(plain(name), by_plain, n=count, cutoff=0.5)
    return [by_plain[key] for key in close] or known[:count]


def lookup(name: str, known: Iterable[str], kind: str) -> str:
    """The spelling of `name` in `known`.

    Args:
        name: what the user wrote.
        known: names that exist.
        kind: what they are, for the error (`'CLIP model'`).

    Raises:
        UnknownName: no such name; the text lists the nearest ones.

    >>> lookup('vit_b_32', ['ViT-B/32', 'RN50'], 'CLIP model')
    'ViT-B/32'
    """
    known = list(known)
    if name in known:
        return name
    by_plain = {plain(key): key for key in known}
    if plain(name) in by_plain:
        return by_plain[plain(name)]
    raise UnknownName(f'unknown {kind} {name!r}; did you mean one of {nearest(name, known)}?')


def choice(argument: str, value: T, allowed: Collection[T]) -> T:
    """The value of an argument that takes one of a few.

    Raises:
        UnknownName: another value.

    >>> choice('resize_mode', 'padd', ('squash', 'pad'))
    Traceback (most recent call last):
    frozenmm.errors.UnknownName: resize_mode must be one of ['squash', 'pad'], got 'padd'
    """
    if value not in allowed:
        raise UnknownName(f'{argument} must be one of {list(allowed)}, got {value!r}')
    return value


def require_known(given: Iterable[str], known: Iterable[str], kind: str) -> None:
    """Refuse names that are not among those known, with the nearest ones.

    Raises:
        UnknownName: see above.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise UnknownName(f'unknown {kind} {name!r}; did you mean one of {nearest(name, known)}?')
