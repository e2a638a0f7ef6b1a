"""Checkpoints that are put into the zoo: the trained part alone, a true header, an index that stays readable."""
from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.compat.fetch import file_digest
from frozenmm.foundation.frozen_module import FrozenModule
from frozenmm.zoo import checkpoints, export

CFG = Config(dict(model=dict(type='Toy', sizes=(3, 4))))
ABOUT = dict(task='open-vocabulary', config='configs/a.py', what='A toy.', license='Apache-2.0', data_terms='none',
             make='make toy')


class Toy(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.tower = FrozenModule(nn.Linear(300, 300), name='a tower')
        self.head = nn.Linear(width, 2)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / 'index.json').write_text('{}')
    return tmp_path / 'index.json'


def write(tmp_path: Path, model: nn.Module, **changes: object) -> Path:
    origin = export.Origin('toys', {'PQ': 1.5}, trained_at='abc')
    return export.export_checkpoint('toy', model, CFG, origin, folder=tmp_path, **changes)


def test_the_file_holds_the_trained_part_and_says_where_it_comes_from(tmp_path):
    model = Toy()
    path = write(tmp_path, model)
    assert path.name == f'toy-{file_digest(path)[:8]}.safetensors' and list(tmp_path.iterdir()) == [path]
    content = load_checkpoint_file(path)
    assert set(content['state_dict']) == {'tower.frozen_record', 'head.weight', 'head.bias'}
    torch.testing.assert_close(content['state_dict']['head.weight'], model.head.weight.detach())
    assert content['meta'] == dict(config=dict(type='Toy', sizes=[3, 4]), data='toys', revision='abc',
                                   metrics={'PQ': 1.5}, part='', base_models={'a tower': model.tower.fingerprint})
    assert path.stat().st_size < 5000  # nothing of the tower's 90000 weights
    assert set(checkpoints.HEADER) <= set(content['meta'])


def test_a_large_trained_part_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(export, 'LARGEST', 1000)
    with pytest.raises(ValueError, match='takes .* bytes, more than the 1,000'):
        write(tmp_path, Toy(width=400))
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_written_alone_and_small(tmp_path):
    content = load_checkpoint_file(write(tmp_path, Toy(), part='head', dtype=torch.float16))
    assert set(content['state_dict']) == {'weight', 'bias'} and content['meta']['part'] == 'head'
    assert content['state_dict']['weight'].dtype == torch.float16
    with pytest.raises(ValueError, match=r"no part 'neck'; its parts are \['head', 'tower'\]"):
        write(tmp_path, Toy(), part='neck')


def test_another_frozen_network_is_refused(tmp_path):
    state = load_checkpoint_file(write(tmp_path, Toy()))['state_dict']
    other = Toy()
    other.tower = FrozenModule(nn.Linear(300, 300), name='another')
    with pytest.raises(ValueError, match='made with the frozen network a tower'):
        other.load_state_dict(state)


def test_an_entry_leads_to_the_file_and_a_new_one_replaces_it(tmp_path, index):
    first = write(tmp_path, Toy())
    export.enter('toy', first, export.Description(**ABOUT, aliases=('short', )), index=index)
    entry = checkpoints.read_index(index)['toy']
    assert entry.file == first.name and entry.sha256 == file_digest(first) and entry.aliases == ('short', )
    second = write(tmp_path, Toy())
    export.enter('toy', second, export.Description(**ABOUT), index=index)
    assert checkpoints.read_index(index)['toy'].file == second.name
    assert second.is_file() and not first.exists()


def test_a_wrong_entry_leaves_the_index_as_it_was(tmp_path, index):
    before = index.read_text()
    with pytest.raises(ValueError, match="the task of 'toy' must be one of"):
        export.enter('toy', write(tmp_path, Toy()), export.Description(**dict(ABOUT, task='drawing')), index=index)
    assert index.read_text() == before


def test_the_revision_tells_a_changed_checkout(tmp_path):
    with pytest.raises(FileNotFoundError, match='no git checkout'):
        export.revision(tmp_path)
    for command in (['init', '-q'], ['add', 'a'], ['-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'a']):
        (tmp_path / 'a').write_text('one')
        subprocess.run(['git', '-C', str(tmp_path), *command], check=True)
    assert re.fullmatch('[0-9a-f]{40}', export.revision(tmp_path))
    (tmp_path / 'a').write_text('two')
    assert export.revision(tmp_path).endswith('-dirty')


def test_the_tool_names_a_missing_config(repo_root, tmp_path):
    (tmp_path / 'metrics.json').write_text(json.dumps({}))
    command = [sys.executable, 'tools/export_checkpoint.py', 'toy', 'configs/nothing.py', 'weights.pth', '--task',
               'depth', '--data', 'none', '--metrics', str(tmp_path / 'metrics.json'), '--what', 'none',
               '--data-terms', 'none', '--make', 'none']
    found = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=False)
    assert found.returncode != 0 and 'there is no config configs/nothing.py' in found.stderr
    assert 'Traceback' not in found.stderr
