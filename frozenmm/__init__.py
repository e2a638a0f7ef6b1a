"""frozenmm: frozen foundation models in OpenMMLab pipelines.

Importing the package pulls in torch and mmengine only. It fills two holes of a plain installation (mmcv without
compiled operators, torchvision's wheel beside a CPU torch; see `frozenmm.compat`) and makes the registries known, so
`custom_imports = dict(imports=['frozenmm'])` is all that a config needs. Everything else loads on first use.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from frozenmm import compat
from frozenmm.version import __version__


def _operators() -> Mapping[str, Callable]:
    """Ours under mmcv's names; imported when mmcv asks for the first of them."""
    from frozenmm.ops.mmcv_names import OPERATORS
    return OPERATORS


compat.fill_holes(_operators)

from frozenmm import registry  # noqa: E402  (the holes must be filled before any mm* package is imported)

if TYPE_CHECKING:
    from frozenmm.models import *  # noqa: F403

__all__ = ['__version__', 'compat', 'registry']
_OF_OPERATORS = ('optimize', 'restore')


def __getattr__(name: str) -> object:
    """Rooms (`frozenmm.ops`), `optimize` and registered classes (`frozenmm.EnhancedDINO`), on first use (PEP 562)."""
    if name.startswith('_'):
        raise AttributeError(name)
    if name in _OF_OPERATORS:
        return getattr(import_module('frozenmm.ops'), name)
    if find_spec(f'frozenmm.{name}') is not None:
        return import_module(f'frozenmm.{name}')
    for index in registry.INDEXES:
        if hasattr(import_module(index), name):
            return getattr(import_module(index), name)
    raise AttributeError(f'frozenmm has no attribute {name!r}; the registered classes are listed in `frozenmm.models` '
                         'and `frozenmm.datasets`')
