"""The examples in the docstrings hold."""
from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def with_examples() -> list[str]:
    """Modules whose source holds an example."""
    return ['.'.join(file.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
            for file in sorted((ROOT / 'frozenmm').rglob('*.py')) if '>>> ' in file.read_text(encoding='utf-8')]


def test_there_are_examples():
    assert len(with_examples()) >= 2


@pytest.mark.parametrize('name', with_examples())
def test_the_examples_of_a_module_hold(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    outcome = doctest.testmod(module, optionflags=FLAGS)
    assert outcome.attempted > 0 and outcome.failed == 0


def test_registered_classes_and_functions_of_the_front_door_exist():
    tree = ast.parse((ROOT / 'frozenmm/models/__init__.py').read_text(encoding='utf-8'))
    names = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
             for alias in node.names} - {'annotations'}
    frozenmm = importlib.import_module('frozenmm')
    assert [name for name in sorted(names) if not hasattr(frozenmm, name)] == []
