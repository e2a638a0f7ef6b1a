"""Exporting the trained part of a model."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.compat.fetch import file_digest
from frozenmm.foundation.frozen_module import FrozenModule
from frozenmm.zoo.checkpoints import HEADER
from frozenmm.zoo.export import export_checkpoint


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tower, self.head = FrozenModule(nn.Linear(3, 2), name='tower'), nn.BatchNorm1d(2)


ABOUT = dict(config='configs/a.py', data='scenes', metrics={'AP': 0.25})


def test_a_part_is_written_small_and_says_where_it_comes_from(tmp_path):
    model = Model()
    path = export_checkpoint(model, 'model', **ABOUT, folder=tmp_path, part='head')
    assert path.name == f'model-{file_digest(path)[:8]}.safetensors' and list(tmp_path.iterdir()) == [path]
    content = load_checkpoint_file(path)
    assert set(HEADER) <= set(content['meta']) and content['meta']['metrics'] == {'AP': 0.25}
    assert content['meta']['base_models'] == {'tower': model.tower.fingerprint}
    state = content['state_dict']
    assert set(state) == {'weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'}
    assert state['weight'].dtype == torch.float16 and state['num_batches_tracked'].dtype == torch.int64
    assert len(content['meta']['revision'].rstrip('+')) in (40, len('unknown'))


def test_a_whole_model_keeps_the_record_of_its_frozen_network(tmp_path):
    model = Model()
    state = load_checkpoint_file(export_checkpoint(model, 'model', **ABOUT, folder=tmp_path))['state_dict']
    assert 'tower.frozen_record' in state and not any(key.startswith('tower.weight') for key in state)
    model.load_state_dict({key: value for key, value in state.items()})
    torch.manual_seed(1)
    other = nn.Module()
    other.tower, other.head = FrozenModule(nn.Linear(3, 2), name='other'), nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match='made with the frozen network tower'):
        other.load_state_dict({key: value for key, value in state.items()})


def test_what_does_not_fit_the_zoo_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no part 'neck'; its parts are \['head', 'tower'\]"):
        export_checkpoint(Model(), 'model', **ABOUT, folder=tmp_path, part='neck')
    model = Model()
    model.head = nn.Linear(3000, 2000)
    with pytest.raises(ValueError, match='more than the 10000000'):
        export_checkpoint(model, 'model', **ABOUT, folder=tmp_path, part='head')
    assert not list(tmp_path.iterdir())
