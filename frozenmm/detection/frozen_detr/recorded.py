"""What mmdet's heads compute on the way to a loss, without a copy of their code."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced(module: nn.Module, name: str, function: Callable) -> Iterator[None]:
    """Let a method of one module be another function as long as the context lasts."""
    before = vars(module).get(name)
    setattr(module, name, function)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)  # the class's own method appears again
        else:
            setattr(module, name, before)


@contextmanager
def recorded(module: nn.Module, name: str) -> Iterator[list[tuple[tuple, Any]]]:
    """The calls of a method, (positional arguments, result) each, which fill up as long as the context lasts."""
    method = getattr(module, name)
    calls: list[tuple[tuple, Any]] = []

    def record(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        calls.append((args, result))
        return result

    with replaced(module, name, record):
        yield calls
