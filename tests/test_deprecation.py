from __future__ import annotations

import inspect

import pytest

from frozenmm.deprecation import grouped_arguments, moved_names, renamed_arguments
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


@grouped_arguments(removed_in='0.3', ensemble=dict(alpha='alpha', frozen_log_scale='log_scale'))
def classifier(*, ensemble: dict | None = None) -> dict | None:
    return ensemble


def test_flat_arguments_go_into_their_dictionary_and_say_so():
    with pytest.warns(FutureWarning, match=r'frozen_log_scale is now called ensemble=dict\(log_scale=2.0\)'):
        assert classifier(frozen_log_scale=2.0) == dict(log_scale=2.0)


def test_a_flat_argument_wins_over_the_dictionary_of_a_base_config():
    given = dict(alpha=0.4, beta=0.8)
    with pytest.warns(FutureWarning):
        assert classifier(alpha=0.1, ensemble=given) == dict(alpha=0.1, beta=0.8)
    assert given == dict(alpha=0.4, beta=0.8)


def test_a_name_that_moved_is_found_and_its_place_said():
    look_up = moved_names('frozenmm.old', removed_in='0.3', Wrong='frozenmm.errors.UserError')
    with pytest.warns(FutureWarning, match=r'frozenmm\.old\.Wrong is now called frozenmm\.errors\.UserError'):
        assert look_up('Wrong') is UserError
    with pytest.raises(AttributeError, match='no attribute'):
        look_up('other')
