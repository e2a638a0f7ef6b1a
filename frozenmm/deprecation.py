"""Old names keep working for one release, with a warning that names the new one (policy: CONTRIBUTING.md)."""
from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from frozenmm.errors import WrongKind

Function = TypeVar('Function', bound=Callable[..., Any])


def warn_renamed(old: str, new: str, *, removed_in: str) -> None:
    """Say once per place that a name changed.

    Args:
        old: the name that was used.
        new: what to write instead.
        removed_in: the release that no longer knows the old name.
    """
    # FutureWarning, because Python hides DeprecationWarning from the people who have to change their configs
    warnings.warn(f'{old} is now called {new}; the old name goes with frozenmm {removed_in}', FutureWarning,
                  stacklevel=3)


def renamed_arguments(*, removed_in: str, **new_names: str | tuple[str, Mapping[object, object]]) -> Callable:
    """Decorator of a function (or `__init__`) whose keyword arguments got other names.

    Args:
        removed_in: the release that no longer knows the old names.
        new_names: old name -> new name, or old name -> (new name, {old value: new value}).

    >>> @renamed_arguments(removed_in='0.4', legacy_border='compat', level_mode=('compat', {'official_flat': True}))
    ... def crop(*, compat=False):
    ...     return compat
    >>> with warnings.catch_warnings(record=True):
    ...     crop(legacy_border=True), crop(level_mode='official_flat')
    (True, True)
    """
    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def with_new_names(*args: Any, **kwargs: Any) -> Any:
            for old, new in new_names.items():
                if old not in kwargs:
                    continue
                name, values = (new, None) if isinstance(new, str) else new
                if name in kwargs:
                    raise WrongKind(f'{function.__qualname__} got {old} and {name}, which are one argument; '
                                    f'keep {name}')
                value = kwargs.pop(old)
                kwargs[name] = value if values is None else values.get(value, value)
                warn_renamed(f'{old}={value!r}', f'{name}={kwargs[name]!r}', removed_in=removed_in)
            return function(*args, **kwargs)
        return with_new_names  # type: ignore[return-value]
    return decorate


def grouped_arguments(*, removed_in: str, **groups: Mapping[str, str]) -> Callable:
    """Decorator of a constructor whose flat keyword arguments moved into dictionaries, as config files nest them.

    A flat argument wins over the same key of the dictionary: it was written over a config that has the new form.

    Args:
        removed_in: the release that no longer knows the flat names.
        groups: name of the dictionary -> {flat name: its key in the dictionary}. A flat argument may have had the
            dictionary's name; then a value that is no dictionary is the flat one.

    >>> @grouped_arguments(removed_in='0.4', ensemble=dict(alpha='alpha', frozen_log_scale='log_scale'))
    ... def classifier(*, ensemble=None):
    ...     return ensemble
    >>> with warnings.catch_warnings(record=True):
    ...     classifier(frozen_log_scale=2.3, ensemble=dict(alpha=0.4))
    {'alpha': 0.4, 'log_scale': 2.3}
    """
    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def with_groups(*args: Any, **kwargs: Any) -> Any:
            for group, keys in groups.items():
                given = {key: kwargs.pop(old) for old, key in keys.items()
                         if old in kwargs and not (old == group and isinstance(kwargs[old], Mapping | None))}
                if not given:
                    continue
                held = kwargs.get(group)
                kwargs[group] = {**(held if isinstance(held, Mapping) else {}), **given}
                warn_renamed(', '.join(old for old, key in keys.items() if key in given),
                             f'{group}=dict({", ".join(f"{key}={value!r}" for key, value in given.items())})',
                             removed_in=removed_in)
            return function(*args, **kwargs)
        return with_groups  # type: ignore[return-value]
    return decorate


def moved_names(module: str, *, removed_in: str, **places: str) -> Callable[[str], object]:
    """A module's `__getattr__` (PEP 562) for names that moved.

    Args:
        module: `__name__` of the module that had them.
        removed_in: the release that no longer knows the old place.
        places: old name -> `'package.module.new_name'`.
    """
    def look_up(name: str) -> object:
        if name not in places:
            raise AttributeError(f'module {module!r} has no attribute {name!r}')
        place, _, new_name = places[name].rpartition('.')
        warn_renamed(f'{module}.{name}', places[name], removed_in=removed_in)
        return getattr(import_module(place), new_name)
    return look_up
