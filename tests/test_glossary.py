"""The words that docs/glossary.md rules out do not stand in signatures and configs."""
from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r'^\| (?P<word>`[^|]+`) \| (?P<meaning>[^|]+) \| (?P<refused>[^|]+) \|$', re.M)
NAME = re.compile(r'`([^`]+)`')
# layouts of other people's files are spoken of in their own words
FOREIGN = ('frozenmm/convert/', 'frozenmm/compat/')


def glossary() -> dict[str, str]:
    """Refused word -> the word to use instead."""
    rows = ROW.finditer((ROOT / 'docs/glossary.md').read_text(encoding='utf-8'))
    return {refused: row['word'] for row in rows for refused in NAME.findall(row['refused'])}


def parameters(file: Path) -> set[str]:
    """Names of all parameters of public functions and constructors, old names of the deprecation helpers left out."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.FunctionDef) and (not node.name.startswith('_') or node.name == '__init__'):
            given = node.args
            found |= {a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]}
    return found


def config_keys(file: Path) -> set[str]:
    """Names that a config assigns, keys of its dicts and keywords of its `dict(...)` calls."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Dict):
            found |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return found


def test_the_tables_are_read():
    words = glossary()
    assert words['image_encoder'] == '`tower`' and words['text_encoder'] == '`text_tower`'
    assert words['legacy_border'] == '`compat`' and len(words) > 40


def test_no_word_is_wanted_and_refused():
    words = glossary()
    assert not set(words) & {name for word in words.values() for name in NAME.findall(word)}


@pytest.mark.parametrize(('folder', 'names'), [('frozenmm', parameters), ('configs', config_keys)])
def test_no_signature_and_no_config_uses_a_refused_word(folder, names):
    words = glossary()
    wrong = [f'{file.relative_to(ROOT)}: {name}; the glossary says {words[name]}'
             for file in sorted((ROOT / folder).rglob('*.py'))
             if not str(file.relative_to(ROOT)).startswith(FOREIGN)
             for name in sorted(names(file) & set(words))]
    assert wrong == []
