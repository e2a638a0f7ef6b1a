"""Find a model by its name: spelling variants are accepted, misspelt names are answered with the nearest ones."""
from __future__ import annotations

import difflib
from collections.abc import Iterable


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
        ValueError: no such name; the text lists the nearest ones.
    """
    known = list(known)
    if name in known:
        return name
    by_plain = {plain(key): key for key in known}
    if plain(name) in by_plain:
        return by_plain[plain(name)]
    raise ValueError(f'unknown {kind} {name!r}; did you mean one of {nearest(name, known)}?')
