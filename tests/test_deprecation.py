from __future__ import annotations

import inspect

import pytest

from frozenmm.deprecation import moved_names, renamed_arguments
from frozenmm.errors import UserError


class Tower:
    @renamed_arguments(removed_in='0.3', legacy_border='compat', level_mode=('compat', {'official_flat': True}))
    def __init__(self, size: int = 1, *, compat: bool = False) -> None:
        self.size, self.compat = size, compat


def test_an_old_argument_works_and_names_the_new_one():
    with pytest.warns(FutureWarning, match='legacy_border=True is now called compat=True; the old name goes with'):
        assert Tower(2, legacy_border=True).compat is True


def test_an_old_value_is_translated():
    with pytest.warns(FutureWarning, match='compat=True'):
        assert Tower(level_mode='official_flat').compat is True


def test_old_and_new_together_are_refused():
    with pytest.raises(UserError, match='got legacy_border and compat, which are one argument'):
        Tower(legacy_border=True, compat=False)


def test_the_signature_is_that_of_the_new_names():
    assert list(inspect.signature(Tower).parameters) == ['size', 'compat']


def test_a_name_that_moved_is_found_and_its_place_said():
    look_up = moved_names('frozenmm.old', removed_in='0.3', Wrong='frozenmm.errors.UserError')
    with pytest.warns(FutureWarning, match=r'frozenmm\.old\.Wrong is now called frozenmm\.errors\.UserError'):
        assert look_up('Wrong') is UserError
    with pytest.raises(AttributeError, match='no attribute'):
        look_up('other')
