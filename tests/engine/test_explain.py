from __future__ import annotations

import re

import pytest
from mmdet.registry import MODELS

from frozenmm.engine.explain import explained_building


def _miss(name: str) -> str:
    with pytest.raises(KeyError) as caught, explained_building():
        MODELS.build(dict(type=name))
    return caught.value.args[0]


def test_a_misspelt_type_is_answered_with_the_nearest_one():
    assert re.search(r'nearest: .*mmdet\.ResNet', _miss('ResNett'))
    assert 'frozenmm.EnhancedDINO' in _miss('frozenmm.EnhancedDIN0')


def test_a_type_of_another_scope_is_answered_with_its_full_name():
    text = _miss('EnhancedDINO')
    assert 'no model is registered as \'EnhancedDINO\', but \'frozenmm.EnhancedDINO\' is' in text


def test_a_package_that_is_not_imported_is_named_with_the_line_that_imports_it():
    text = _miss('mmpretrain.VisionTransformer')
    assert 'the package \'mmpretrain\' has not been imported' in text
    assert 'custom_imports = dict(imports=[\'mmpretrain\'])' in text


def test_a_name_unlike_any_other_asks_for_the_import_of_its_module():
    assert 'custom_imports = dict(imports=[\'your_module\'])' in _miss('Qwertyuiopasdf')


def test_other_key_errors_pass_unchanged():
    with pytest.raises(KeyError, match='^\'plain\'$'), explained_building():
        raise KeyError('plain')
