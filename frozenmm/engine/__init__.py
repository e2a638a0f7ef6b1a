"""Hooks, and what the command-line tools do.

What is registered is imported on use: it brings mmengine's runner and mmdet, for which commands that train nothing need
not wait.
"""
from __future__ import annotations

from importlib import import_module


def __getattr__(name: str) -> object:
    if name.startswith('__') or name == 'registered':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module('frozenmm.engine.registered'), name)
