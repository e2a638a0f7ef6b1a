"""Registry misses in words that help: the nearest registered name, or the import that is missing."""
from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.registry import Registry

from frozenmm import registry as ours

_MISS = re.compile(r'(\S+) is not in the (\S+)::(.+?) registry')


@contextmanager
def explained_registry_misses() -> Iterator[None]:
    """Turn mmengine's `KeyError: X is not in the ... registry` into one that says what to write instead."""
    try:
        yield
    except KeyError as error:
        found = _MISS.search(str(error.args[0]) if error.args else '')
        if found is None:
            raise
        ours.refuse_missing_demonstration(found[1])
        raise KeyError(explain_miss(found[1], found[3])) from error


def explain_miss(name: str, kind: str) -> str:
    """What to do about a type that no registry knows.

    Args:
        name: the type as the config writes it, with or without scope.
        kind: the registry's name, e.g. `'model'`.
    """
    scope, _, plain = name.rpartition('.')
    known = {f'{scope_}.{key}': key for scope_, key in _registered(kind)}
    same = sorted(full for full, key in known.items() if key == plain)
    text = f'no {kind} is registered as {name!r}'
    scopes = {full.partition('.')[0] for full in known}
    if scope and scope not in scopes:
        other = f', or take {same[0]!r}' if same else ''
        return (f'{text}: the package {scope!r} has not been imported; add it to the config: '
                f'custom_imports = dict(imports=[{scope!r}]){other}')
    if same:
        return f'{text}, but {same[0]!r} is; write type={same[0]!r}'
    close = difflib.get_close_matches(plain, sorted(set(known.values())), n=3, cutoff=0.6)
    nearest = [full for key in close for full, value in known.items() if value == key][:3]
    advice = f'nearest: {", ".join(nearest)}' if nearest else f'no similar name among {len(known)} registered ones'
    return (f'{text} ({advice}); for a class of your own, add the module that registers it to the config: '
            'custom_imports = dict(imports=[\'your_module\'])')


def _registered(kind: str) -> set[tuple[str, str]]:
    """(scope, name) of everything that the registries of this kind hold, in all imported packages."""
    for registry in vars(ours).values():
        if isinstance(registry, Registry) and registry.name == kind:
            registry.import_from_location()
            root = registry.root
            return set(_walk(root))
    return set()


def _walk(registry: Registry) -> Iterator[tuple[str, str]]:
    registry.import_from_location()
    for name in registry.module_dict:
        yield registry.scope, name
    for child in registry.children.values():
        yield from _walk(child)
