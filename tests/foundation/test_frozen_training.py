"""Frozen means frozen in whole mmdet and mmseg trainings: optimizer, EMA, runner, checkpoints, resume, DDP."""
from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from small_models import KINDS, batch, build, sample, scope
from torch.utils.data import Dataset

from frozenmm.compat import checkpoint
from frozenmm.foundation import frozen_modules

ADAM = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def the_tower(model):
    (tower, ) = frozen_modules(model).values()
    return tower


def weights(model):
    return {name: value.clone() for name, value in the_tower(model).network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train(model, kind, steps=2, wrapper=None):
    wrapper = wrapper or build_optim_wrapper(model, copy.deepcopy(ADAM))
    model.train()
    for step in range(steps):
        model.train_step(batch(kind, 2 * step), wrapper)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class EverythingConstructor:
    """A project's own constructor that takes every parameter of every module, whatever `requires_grad` says."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.lr = optim_wrapper_cfg['optimizer']['lr']

    def __call__(self, model):
        found = {id(p): p for module in model.modules() for p in module.parameters(recurse=False)}
        return OptimWrapper(torch.optim.AdamW(found.values(), lr=self.lr, weight_decay=0.1))


@pytest.mark.parametrize('constructor', [None, 'EverythingConstructor'])
def test_no_optimizer_sees_the_frozen_weights(kind, constructor):
    model = build(kind)
    options = copy.deepcopy(ADAM)
    if constructor:
        options['constructor'] = constructor
    wrapper = build_optim_wrapper(model, options)
    before = weights(model)
    frozen = {id(p) for p in the_tower(model).network.parameters()}
    given = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert frozen and given and not frozen & given
    train(model, kind, wrapper=wrapper)
    assert same(weights(model), before)


def test_training_leaves_batch_norm_and_dropout_of_the_tower_alone(kind):
    model = build(kind)
    before = weights(model)
    assert any('running_mean' in name for name in before)
    train(model, kind)
    model.train()
    network = the_tower(model).network
    assert not any(module.training for module in network.modules())
    assert same(weights(model), before)
    image = torch.rand(1, 3, 64, 64)
    tower = the_tower(model)
    assert torch.equal(tower(image).map(), tower(image).map())


def test_an_ema_copy_shares_the_tower_and_averages_the_rest(kind):
    model = build(kind)
    before = weights(model)
    average = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    assert the_tower(average).network is the_tower(model).network
    wrapper = build_optim_wrapper(model, copy.deepcopy(ADAM))
    for _ in range(2):
        train(model, kind, steps=1, wrapper=wrapper)
        average.update_parameters(model)
    assert same(weights(model), before)
    ours, theirs = dict(model.named_parameters()), dict(average.module.named_parameters())
    assert ours.keys() == theirs.keys() and any(not torch.equal(ours[name], theirs[name]) for name in ours)
    average.module.load_state_dict(average.module.state_dict())


class Samples(Dataset):
    metainfo = dict(classes=('a', 'b', 'c'))

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return sample(self.kind, index)


def runner(kind, folder, seed=0, epochs=1, resume=False):
    loader = dict(dataset=Samples(kind), batch_size=2, num_workers=0,
                  sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='pseudo_collate'))
    return Runner(
        model=build(kind, seed), work_dir=str(folder), train_dataloader=loader, optim_wrapper=copy.deepcopy(ADAM),
        train_cfg=dict(by_epoch=True, max_epochs=epochs), default_scope=scope(kind), resume=resume,
        custom_hooks=[dict(type='EMAHook', update_buffers=True)], experiment_name=f'{kind}{epochs}{seed}{resume}',
        randomness=dict(seed=0))


def test_runner_saves_a_record_and_resumes_with_the_same_tower_only(kind, tmp_path, monkeypatch):
    checkpoint.open_checkpoints_safely()
    first = runner(kind, tmp_path)
    before = weights(first.model)
    first.train()
    assert same(weights(first.model), before)

    saved = checkpoint.load_checkpoint_file(tmp_path / 'epoch_1.pth')
    place = next(iter(frozen_modules(first.model)))
    for key, prefix in (('state_dict', ''), ('ema_state_dict', 'module.')):
        names = [name for name in saved[key] if name.startswith(f'{prefix}{place}.')]
        assert names == [f'{prefix}{place}.frozen_record']
    assert max(value.numel() for value in saved['optimizer']['state'][0].values()) > 0

    second = runner(kind, tmp_path, epochs=2, resume=True)
    second.train()
    assert second.epoch == 2
    assert same(weights(second.model), before)

    other = runner(kind, tmp_path, seed=1, epochs=3, resume=True)
    with pytest.raises(ValueError, match='the checkpoint was made with the frozen network RandomTower'):
        other.train()


DDP = '''
import faulthandler, os, sys
faulthandler.dump_traceback_later(500, exit=True)  # a process that waits for ever says where
folder, rank, store, *kinds = sys.argv[1:]
sys.path.insert(0, folder)
import torch
import frozenmm
import small_models
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from frozenmm.foundation import frozen_modules

rank = int(rank)
torch.distributed.init_process_group('gloo', init_method='file://' + store, rank=rank, world_size=2)


def gather(value):
    both = [torch.empty_like(value) for _ in range(2)]
    torch.distributed.all_gather(both, value)
    return both


for kind in kinds:
    # another tower in every process: a broadcast or an average would make them equal
    model = small_models.build(kind, seed=rank)
    (tower,) = frozen_modules(model).values()
    before = {key: value.clone() for key, value in tower.network.state_dict().items()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    ddp = MMDistributedDataParallel(model, broadcast_buffers=True, find_unused_parameters=False)
    data = ddp._get_ddp_logging_data()
    assert data['num_parameter_tensors'] == len(trainable), data
    assert data['total_parameter_size_bytes'] == sum(p.numel() * 4 for p in trainable), data
    wrapper = build_optim_wrapper(ddp, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)))
    ddp.train()
    for step in range(2):
        ddp.train_step(small_models.batch(kind, 10 * rank + step), wrapper)
    after = tower.network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert all(torch.equal(*gather(parameter.detach())) for parameter in trainable)
    assert not torch.equal(*gather(next(iter(before.values()))))
torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end, after everything above has been checked
'''


def test_two_processes_neither_reduce_nor_broadcast_the_tower(tmp_path):
    arguments = [sys.executable, '-W', 'ignore', '-c', DDP, str(Path(__file__).parent)]
    processes = [
        subprocess.Popen([*arguments, str(rank), str(tmp_path / 'store'), 'mmdet_neck', 'mmseg_backbone'],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         env={**os.environ, 'OMP_NUM_THREADS': '1'}) for rank in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(text[-2000:] for text in outputs)
