from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from frozenmm.demo.quickstart import (
    REPEATS,
    ROWS,
    Budget,
    RowResult,
    explain,
    format_table,
    rows,
    uneven_rates,
    verdict,
    write_report,
)
from frozenmm.demo.quickstart.repeats import Repeats
from frozenmm.errors import UserError

CLASSES, PALETTE = ('cat', 'dog'), ((255, 0, 0), (0, 0, 255))


def _result(letter, ap, shown=None, iterations=100, seconds=60.0):
    frozen = 0 if letter == 'a' else 4_600_000
    return RowResult(letter, f'meaning of {letter}', ap, 2 * ap, iterations, seconds, 1_500_000, frozen, 0, 2,
                     shown or {})


def _five_minutes(ap, share=1.0, slower=None):
    """Rows as five minutes give them on a machine of this share of the speed; the rows in `slower` are still slower."""
    shares = {letter: share * (slower or {}).get(letter, 1) for letter in 'abc'}
    counts = {'a': 535 * shares['a'], 'b': 467 * shares['b'], 'c': 718 * shares['c']}
    return [_result(letter, value, iterations=round(counts[letter]), seconds=300) for letter, value in zip('abc', ap)]


def test_the_table_is_aligned_markdown():
    lines = format_table([_result('a', 0.1), _result('c', 0.25)]).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    assert [cell.strip() for cell in lines[3].split('|')[1:-1]] == [
        '(c)', 'meaning of c', '0.250', '0.500', '100', '1.50 M', '4.60 M']


def test_the_explanation_compares_the_rows_that_are_there():
    text = explain(_five_minutes((0.16, 0.22, 0.43)), Budget(minutes=5))
    assert 'small DINO for 5 min' in text and 'Threads: 2.' in text
    assert '(c) against (a)' in text and '+0.270, a gain that repeats have shown: 3 seeds gave +0.267' in text
    assert '(b) against (a)' in text and '+0.060, a gain that repeats have shown' in text
    alone = explain([_result('c', 0.25)], Budget(iterations=9))
    assert 'against' not in alone and 'for 9 iterations' in alone


def test_neither_table_nor_explanation_depends_on_how_long_it_took():
    quick, slow = ([_result(letter, 0.1, iterations=110, seconds=seconds) for letter in 'ac'] for seconds in (60, 600))
    for budget in Budget(), Budget(iterations=110):
        assert explain(quick, budget) == explain(slow, budget)
    assert format_table(quick) == format_table(slow)


@pytest.mark.parametrize(('gains', 'run', 'says'), [
    ((0.01, -0.02, 0.03), 0.02, 'one run cannot tell: 3 seeds gave'),
    ((0.29, 0.30, 0.31), 0.31, 'a gain that repeats have shown'),
    ((0.29, 0.30, 0.31), 0.00, 'unlike the repeats, so it says nothing'),
    (None, 0.3, 'one run cannot tell, and nobody has repeated'),
])
def test_a_verdict_says_what_repeats_have_shown(monkeypatch, gains, run, says):
    known = () if gains is None else (
        Repeats({'a': 100, 'c': 100}, {'a': (0.10, 0.11, 0.12), 'c': [0.11 + gain for gain in gains]}), )
    monkeypatch.setattr('frozenmm.demo.quickstart.repeats.REPEATS', known)
    assert says in verdict(_result('c', 0.1 + run), _result('a', 0.1))


def test_repeats_speak_only_for_runs_of_about_so_many_iterations():
    assert 'nobody has repeated' in verdict(_result('c', 0.4, iterations=3000), _result('a', 0.1, iterations=3000))
    assert 'nobody has repeated' in verdict(_result('c', 0.0, iterations=15), _result('a', 0.06, iterations=214))


@pytest.mark.parametrize(('share', 'slower', 'even'), [
    (1, {}, True), (0.5, {}, True), (0.5, {'c': 0.6}, False), (1, {'b': 0.2, 'c': 0.1}, False)])
def test_minutes_give_no_verdict_where_the_machine_was_busy(share, slower, even):
    results = _five_minutes((0.06, 0.002, 0.0), share, slower)
    text = explain(results, Budget(minutes=5))
    assert (uneven_rates(results) is None) == even == ('No verdict' not in text)
    if not even:
        assert 'against' not in text and 'without MINUTES' in text


def test_the_shipped_repeats_are_those_that_were_measured(repo_root):
    stored = json.loads((repo_root / 'benchmarks/results/frozen_detr_quickstart.json').read_text())
    measured = {}
    for run in stored['runs']:
        measured.setdefault((run['letter'], run['iterations']), {})[run['seed']] = run['ap']
    for repeats in REPEATS:
        for letter, count in repeats.iterations.items():
            runs = measured[letter, count]
            assert tuple(runs[seed] for seed in sorted(runs)) == tuple(repeats.ap[letter]) and len(runs) >= 3


def test_the_recipe_costs_every_row_the_same_and_is_repeated():
    costs = [row.iterations * row.seconds for row in ROWS]
    assert max(costs) < 1.02 * min(costs)
    assert any(dict(repeats.iterations) == {row.letter: row.iterations for row in ROWS} for repeats in REPEATS)
    gains = {pair: next(repeats for repeats in REPEATS if repeats.iterations['a'] == ROWS[0].iterations).gap(*pair)
             for pair in ('ca', 'ba')}
    assert all(mean > 2 * deviation for mean, deviation in gains.values())


def test_the_report_holds_numbers_and_pictures(tmp_path):
    path = str(tmp_path / 'picture.jpg')
    cv2.imwrite(path, np.full((40, 40, 3), 90, np.uint8))
    shown = {path: {'truth': {'xyxy': [[1, 1, 20, 20]], 'labels': [0]},
                    'prediction': {'xyxy': [], 'labels': [], 'scores': []}}}
    found = {path: {**shown[path], 'prediction': {'xyxy': [[2, 2, 20, 20]], 'labels': [1], 'scores': [0.8]}}}
    text = write_report([_result('a', 0.1, shown), _result('c', 0.25, found)], Budget(), tmp_path / 'out',
                        classes=CLASSES, palette=PALETTE)
    assert (tmp_path / 'out/table.md').read_text() == text
    stored = json.loads((tmp_path / 'out/results.json').read_text())
    assert stored['budget'] == {'minutes': None, 'iterations': None} and stored['rows'][1]['ap'] == 0.25
    assert 'shown' not in stored['rows'][0]
    sheet = cv2.imread(str(tmp_path / 'out/pictures/picture.png'))
    assert sheet.shape[1] == 3 * 408 + 8


def test_results_of_another_config_are_forgotten_and_those_of_the_same_kept(tmp_path):
    for name in ('iter_5.pth', 'last_checkpoint', 'result.json'):
        (tmp_path / name).write_text('old')
    rows._forget_other_config(tmp_path, 'one')
    assert (tmp_path / 'iter_5.pth').exists()
    rows._forget_other_config(tmp_path, 'one')
    assert (tmp_path / 'iter_5.pth').exists()
    rows._forget_other_config(tmp_path, 'two')
    assert [path.name for path in tmp_path.iterdir()] == ['config.sha256']


def test_shared_networks_count_once():
    import torch
    from torch import nn

    from frozenmm.foundation import FrozenModule, FrozenNetwork
    network = FrozenNetwork(nn.Linear(10, 10), name='shared')
    model = nn.ModuleList([nn.Linear(2, 2), FrozenModule(network), FrozenModule(network)])
    model[0].bias.requires_grad_(False)
    assert rows.count_parameters(model) == (4, 2 + 110)
    assert torch.is_tensor(model[0].weight)


@pytest.mark.parametrize(('budget', 'text'), [(Budget(minutes=2.0), '2 min'), (Budget(iterations=7), '7 iterations'),
                                              (Budget(), 'recipe')])
def test_a_budget_reads_as_it_is_meant(budget, text):
    assert str(budget) == text


def test_a_budget_is_one_thing():
    assert [Budget().of_row(row)['iterations'] for row in ROWS] == [row.iterations for row in ROWS]
    assert Budget(minutes=2).of_row(ROWS[0]) == dict(minutes=2, iterations=None)
    with pytest.raises(UserError, match='minutes or iterations'):
        Budget(1.0, 2)
