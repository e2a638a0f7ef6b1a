from __future__ import annotations

import os

import pytest

from frozenmm.engine.run_folder import best_checkpoint, checkpoints, make_room, run_config
from frozenmm.errors import MissingFile, UserError


def _run(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_the_best_checkpoint_goes_before_the_last_and_the_last_before_earlier_ones(tmp_path):
    _run(tmp_path, 'iter_90.pth', 'iter_100.pth', 'notes.pth')
    assert best_checkpoint(tmp_path).name == 'iter_100.pth'
    _run(tmp_path, 'best_coco_bbox_mAP_iter_50.pth')
    assert [path.name for path in checkpoints(tmp_path)] == [
        'best_coco_bbox_mAP_iter_50.pth', 'iter_100.pth', 'iter_90.pth']


def test_the_config_is_the_one_that_was_written_last(tmp_path):
    _run(tmp_path, 'old.py', 'new.py')
    os.utime(tmp_path / 'old.py', (1, 1))
    assert run_config(tmp_path).name == 'new.py'


def test_a_folder_without_run_is_said_to_be_none(tmp_path):
    with pytest.raises(MissingFile, match='holds no checkpoint of a training'):
        best_checkpoint(tmp_path)
    with pytest.raises(MissingFile, match='holds no config'):
        run_config(tmp_path)


def test_a_run_is_kept_unless_it_is_to_be_replaced(tmp_path):
    run = _run(tmp_path, 'iter_2.pth', 'last_checkpoint', 'config.py', '20260101_101010/a.log', 'samples/a.png',
               'curves.png', 'notes.txt', 'mine/a.txt', 'other.pth')
    with pytest.raises(UserError, match=r'holds a run already \(iter_2.pth\); go on with it \(--resume\), replace it'):
        make_room(run, overwrite=False)
    assert (run / 'iter_2.pth').exists() and (run / 'samples').exists()
    make_room(run, overwrite=True)
    assert sorted(path.name for path in run.iterdir()) == ['mine', 'notes.txt', 'other.pth']


def test_a_new_or_foreign_folder_is_left_as_it_is(tmp_path):
    make_room(tmp_path / 'new', overwrite=False)
    _run(tmp_path, 'config.py', 'samples/a.png')
    make_room(tmp_path, overwrite=True)
    assert (tmp_path / 'config.py').exists() and (tmp_path / 'samples/a.png').exists()
