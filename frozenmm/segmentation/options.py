"""Parts from the options that a config gives them."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from frozenmm.errors import WrongKind
from frozenmm.foundation.lookup import nearest

Part = TypeVar('Part')


def built(kind: Callable[..., Part], options: Mapping[str, object] | None, *arguments: object) -> Part:
    """A part of a model from its options.

    Args:
        kind: its class.
        options: keyword arguments, from a config; None: all as they are by default.
        arguments: positional arguments, which the model knows itself.

    Raises:
        WrongKind: an option that the part does not have; the text names the nearest ones.

    >>> built(dict, {'width': 3}, {'height': 2})
    {'height': 2, 'width': 3}
    """
    try:
        return kind(*arguments, **(options or {}))
    except TypeError:
        known = list(inspect.signature(kind).parameters)
        unknown = [name for name in options or {} if name not in known]
        if not unknown:
            raise
        raise WrongKind(f'{getattr(kind, "__name__", kind)} has no option {unknown[0]!r}; did you mean one of '
                        f'{nearest(unknown[0], known)}?') from None


def part(kind: Callable[..., nn.Module], given: nn.Module | Mapping[str, object] | None,
         *arguments: object) -> nn.Module:
    """A module that was given built, or one of `kind` from its options; see `built`."""
    return given if isinstance(given, nn.Module) else built(kind, given, *arguments)
