from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

TINY = ['model.encoder.num_layers=1', 'model.decoder.num_layers=1', 'train_dataloader.batch_size=2',
        '+train_dataloader.dataset.indices=4', '+test_dataloader.dataset.indices=6']


def _quickstart(repo_root, data, work, *arguments):
    return subprocess.run([sys.executable, 'tools/quickstart.py', '--iterations', '3', '--data-root', str(data),
                           '--work-dir', str(work), *arguments, '--cfg-options', *TINY], cwd=repo_root, timeout=600,
                          capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})


@pytest.mark.journey
def test_a_newcomer_gets_the_table_and_the_pictures_and_pays_once(repo_root, tmp_path):
    data, work = tmp_path / 'scenes', tmp_path / 'work'
    first = _quickstart(repo_root, data, work)
    assert first.returncode == 0, first.stderr
    for letter, words in (('a', 'from scratch'), ('b', 'as enhancer'), ('c', 'the only backbone')):
        assert any(line.startswith(f'| ({letter}) ') and words in line for line in first.stdout.splitlines())
    assert 'backgrounds and lighting never occurred in training' in first.stdout
    assert 's left' in first.stderr and 'Average Precision' not in first.stdout
    folder = work / '3-iterations'
    assert (folder / 'table.md').read_text().splitlines()[0] in first.stdout
    rows = json.loads((folder / 'results.json').read_text())['rows']
    assert [row['letter'] for row in rows] == ['a', 'b', 'c'] and all(row['iterations'] == 3 for row in rows)
    assert rows[0]['frozen'] == 0 and rows[1]['frozen'] == rows[2]['frozen'] > 3_000_000
    assert len(list((folder / 'pictures').glob('*.png'))) == 6

    assert 'Threads: 1.' in first.stdout and 'To go on: frozenmm infer' in first.stdout

    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob('*.pth')}
    again = _quickstart(repo_root, data, work)
    assert again.returncode == 0 and 'training, iteration' not in again.stderr
    assert again.stdout.count('| (') == 3
    assert {path: path.stat().st_mtime_ns for path in folder.rglob('*.pth')} == stamps


@pytest.mark.journey
def test_two_runs_give_the_same_table_bit_for_bit(repo_root, tmp_path):
    texts = []
    for name in 'one', 'two':
        _quickstart(repo_root, tmp_path / 'scenes', tmp_path / name, '--rows', 'c')
        folder = tmp_path / name / '3-iterations'
        texts.append((folder / 'table.md').read_text())
        weights = torch.load(folder / 'c/iter_3.pth', weights_only=False)['state_dict']
        texts.append({key: value.numpy().tobytes() for key, value in weights.items() if torch.is_tensor(value)})
    assert texts[0] == texts[2] and texts[1] == texts[3]
