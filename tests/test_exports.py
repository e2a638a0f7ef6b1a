"""What packages promise in `__all__` is there, and what is registered can be imported where its room says."""
from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import frozenmm
from frozenmm.registry import METRICS, MODELS

PACKAGES = ['frozenmm', *(found.name for found in pkgutil.walk_packages(frozenmm.__path__, 'frozenmm.')
                          if found.ispkg and found.name != 'frozenmm.models')]


@pytest.mark.parametrize('name', PACKAGES)
def test_every_promised_name_exists(name):
    package = importlib.import_module(name)
    promised = getattr(package, '__all__', [])
    assert [entry for entry in promised if not hasattr(package, entry)] == []
    assert len(set(promised)) == len(promised)


@pytest.mark.parametrize('name', PACKAGES)
def test_a_package_promises_its_names_once(name):
    source = Path(str(importlib.import_module(name).__file__)).read_text(encoding='utf-8')
    assert source.count('\n__all__ = ') + source.startswith('__all__ = ') <= 1


def registered(registry, room: str) -> set[str]:
    importlib.import_module(room)
    return {name for name, kind in registry.module_dict.items() if inspect.isclass(kind)
            and kind.__module__.startswith('frozenmm.') and not kind.__module__.startswith('frozenmm.demo.')}


@pytest.mark.parametrize(('registry', 'room'), [(MODELS, 'frozenmm.models'), (METRICS, 'frozenmm.evaluation')],
                         ids=['models', 'metrics'])
def test_every_registered_class_is_exported(registry, room):
    names = registered(registry, room)
    package = importlib.import_module(room)
    exported = getattr(package, '__all__', vars(package))
    assert len(names) > 5 and sorted(name for name in names if name not in exported) == []
