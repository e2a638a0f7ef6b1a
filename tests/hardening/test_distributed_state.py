"""Frozen modules under FSDP2 and `torch.distributed.checkpoint`: two processes save, load and resume bit for bit."""
from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict, set_model_state_dict

from frozenmm.foundation import FrozenModule

SCRIPT = r'''
import os, sys
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from frozenmm.foundation import FrozenModule, fingerprint
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
mesh = init_device_mesh('cpu', (2, ))


class Model(nn.Module):
    def __init__(self, name='tower'):
        super().__init__()
        torch.manual_seed(0)
        self.frozen = FrozenModule(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), name=name, gradient='through')
        torch.manual_seed(rank)  # each process draws its own, as a real one may
        self.before, self.head = nn.Linear(6, 6), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.frozen(self.before(x)))


def build():
    model = Model()
    fully_shard(model.head, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def step(model, optimizer, number):
    images = torch.randn(5, 6, generator=torch.Generator().manual_seed(10 * number + rank))
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


def local(model):
    return [value.to_local().clone() for value in model.parameters()]


model, optimizer = build()
tower = fingerprint(model.frozen.network)
assert not any('frozen' in name for name, _ in model.named_parameters())
for number in range(3):
    step(model, optimizer, number)
weights, moments = get_state_dict(model, optimizer)
assert 'frozen.frozen_record' in weights
dcp.save(dict(model=weights, optimizer=moments), checkpoint_id=f'{folder}/saved')
saved = local(model)
for number in range(3, 6):
    step(model, optimizer, number)
whole = local(model)

resumed, again = build()
weights, moments = get_state_dict(resumed, again)
content = dict(model=weights, optimizer=moments)
dcp.load(content, checkpoint_id=f'{folder}/saved')
set_state_dict(resumed, again, model_state_dict=content['model'], optim_state_dict=content['optimizer'])
assert all(torch.equal(a, b) for a, b in zip(local(resumed), saved, strict=True))
for number in range(3, 6):
    step(resumed, again, number)
assert all(torch.equal(a, b) for a, b in zip(local(resumed), whole, strict=True))
assert fingerprint(resumed.frozen.network) == fingerprint(model.frozen.network) == tower

other = Model('another tower with a name of another length')
torch.nn.init.zeros_(other.frozen.network[0].weight)
other.frozen = FrozenModule(other.frozen.network, name='another tower with a name of another length')
fully_shard(other, mesh=mesh)
weights = get_state_dict(other, ())[0]
dcp.load(dict(model=weights), checkpoint_id=f'{folder}/saved')
try:
    set_state_dict(other, (), model_state_dict=weights, optim_state_dict={})
except ValueError as error:
    assert 'was made with the frozen network tower' in str(error), error
else:
    raise AssertionError('the state of another tower was taken')
dist.barrier()
print('done', flush=True)
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end, after everything above has been checked
'''


@pytest.mark.journey
def test_two_processes_save_and_resume_with_fsdp2(tmp_path, repo_root):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    processes = [subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path)], cwd=repo_root, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for rank in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert all(output.rstrip().endswith('done') for output in outputs), '\n'.join(outputs)[-4000:]


def _model(name: str = 'tower') -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.ModuleDict(dict(frozen=FrozenModule(torch.nn.Linear(2, 2), name=name), head=torch.nn.Linear(2, 2)))


def test_the_functions_of_distributed_checkpoints_take_a_frozen_module():
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = get_model_state_dict(model)
    assert sorted(state) == ['frozen.frozen_record', 'head.bias', 'head.weight']
    assert sorted(get_state_dict(model, optimizer)[0]) == sorted(state)
    set_model_state_dict(_model(), state)


def test_records_of_all_names_have_one_size():
    sizes = {len(FrozenModule(torch.nn.Linear(1, 1), name=name).state_dict()['frozen_record'])
             for name in ('a', 'A much longer name, with ümlauts')}
    assert len(sizes) == 1
