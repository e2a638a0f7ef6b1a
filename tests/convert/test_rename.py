"""Key maps: every key is accounted for."""
from __future__ import annotations

import pytest
import torch

from frozenmm.convert import Rename, rename_keys

ONE, TWO = torch.ones(1), torch.zeros(2)


def test_the_report_accounts_for_every_key():
    rules = [Rename(r'a\.(.+)', r'b.\1'), Rename(r'copy\.(.+)', r'b.\1'), Rename(r'junk\..*', None, 'not needed')]
    state = {'a.x': ONE, 'copy.x': ONE.clone(), 'junk.y': TWO, 'same': TWO, 'strange': TWO}
    result, report = rename_keys(state, rules, expected=['b.x', 'same', 'absent'])
    assert result == {'b.x': ONE, 'same': TWO}
    assert report.renamed == {'a.x': 'b.x'} and report.aliases == {'copy.x': 'b.x'} and report.kept == ['same']
    assert report.dropped == {'junk.y': 'not needed'} and report.unmatched == ['strange']
    assert report.missing == ['absent']
    text = str(report)
    assert 'dropped, not needed: junk.y' in text and 'unmatched: strange' in text and 'missing: absent' in text


def test_the_first_matching_rule_decides_and_must_match_the_whole_key():
    result, _ = rename_keys({'ab': ONE, 'abc': TWO}, [Rename('ab', 'first'), Rename('abc?', 'second')])
    assert result == {'first': ONE, 'second': TWO}


def test_aliases_with_different_values_are_refused():
    rules = [Rename(r'[ab]\.w', 'w')]
    with pytest.raises(ValueError, match=r'a\.w and b\.w both become w, but their values differ'):
        rename_keys({'a.w': ONE, 'b.w': ONE + 1}, rules)


def test_unmatched_keys_are_refused_with_examples():
    _, report = rename_keys({f'k{index}': ONE for index in range(6)}, [])
    with pytest.raises(ValueError, match='6 keys do not belong to the layout of X: k0, k1, k2, k3 and 2 more'):
        report.require_all_matched('X')


def test_a_drop_needs_a_reason():
    with pytest.raises(ValueError, match='needs a reason'):
        Rename('a', None)
