from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from frozenmm.demo.quickstart import Budget, RowResult, explain, format_table, rows, write_report

CLASSES, PALETTE = ('cat', 'dog'), ((255, 0, 0), (0, 0, 255))


def _result(letter, ap, shown=None):
    frozen = 0 if letter == 'a' else 4_600_000
    return RowResult(letter, f'meaning of {letter}', ap, 2 * ap, 100, 60.0, 1_500_000, frozen, 0, shown or {})


def test_the_table_is_aligned_markdown():
    lines = format_table([_result('a', 0.1), _result('c', 0.25)]).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    assert [cell.strip() for cell in lines[3].split('|')[1:-1]] == [
        '(c)', 'meaning of c', '0.250', '0.500', '100', '60', '1.50 M', '4.60 M']


def test_the_explanation_compares_the_rows_that_are_there():
    text = explain([_result('a', 0.1), _result('b', 0.15), _result('c', 0.25)], Budget(minutes=5))
    assert 'for 5 min' in text and '0.100 -> 0.250 (+0.150, 2.5 times)' in text and '0.100 -> 0.150 (+0.050' in text
    alone = explain([_result('c', 0.25)], Budget(iterations=9))
    assert '->' not in alone and 'for 9 iterations' in alone
    assert 'times' not in explain([_result('a', 0.0), _result('c', 0.25)], Budget(minutes=1)).split('\n')[2]


def test_the_report_holds_numbers_and_pictures(tmp_path):
    path = str(tmp_path / 'picture.jpg')
    cv2.imwrite(path, np.full((40, 40, 3), 90, np.uint8))
    shown = {path: {'truth': {'xyxy': [[1, 1, 20, 20]], 'labels': [0]},
                    'prediction': {'xyxy': [], 'labels': [], 'scores': []}}}
    found = {path: {**shown[path], 'prediction': {'xyxy': [[2, 2, 20, 20]], 'labels': [1], 'scores': [0.8]}}}
    text = write_report([_result('a', 0.1, shown), _result('c', 0.25, found)], Budget(minutes=2), tmp_path / 'out',
                        classes=CLASSES, palette=PALETTE)
    assert (tmp_path / 'out/table.md').read_text() == text
    stored = json.loads((tmp_path / 'out/results.json').read_text())
    assert stored['budget'] == {'minutes': 2, 'iterations': None} and stored['rows'][1]['ap'] == 0.25
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


@pytest.mark.parametrize(('budget', 'text'), [(Budget(minutes=2.0), '2 min'), (Budget(iterations=7), '7 iterations')])
def test_a_budget_reads_as_it_is_meant(budget, text):
    assert str(budget) == text
