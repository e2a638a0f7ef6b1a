"""A tower inside a detector stays what it was, and stays out of everything that trains, averages, sends or stores."""
from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_dino as tiny
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch.utils.data import Dataset

from frozenmm.compat import checkpoint
from frozenmm.registry import DATASETS


def snapshot(model):
    """All weights and statistics of the first tower."""
    return {key: value.clone() for key, value in model.enhancers[0].tower.network.state_dict().items()}


def assert_frozen(model, before):
    after = model.enhancers[0].tower.network.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), key


def optimizer_of(model):
    return build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1),
                                           paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)})))


@pytest.fixture
def model():
    return tiny.build(tiny.enhanced(tiny.tiny(5, ('res3', 'res4'))))


@pytest.mark.parametrize('autocast', [False, True], ids=['fp32', 'bf16'])
def test_tower_is_bit_equal_after_training_steps(model, autocast):
    before, own = snapshot(model), copy.deepcopy(model.level_embed)
    optimizer = optimizer_of(model)
    for step in range(3):
        model.train()
        data = model.data_preprocessor(tiny.batch(seed=step), True)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            losses = model(**data, mode='loss')
        optimizer.update_params(sum(value.sum() for value in losses.values()))
        tiny.outputs(model, tiny.batch())
    assert_frozen(model, before)
    assert not torch.equal(own, model.level_embed)


def test_tower_features_do_not_depend_on_the_mode(model):
    data = model.data_preprocessor(tiny.batch())
    results = []
    for mode in True, False:
        model.train(mode)
        results.append(model.foundation_features(data['inputs'], data['data_samples'])[0])
    assert torch.equal(results[0].maps['res3'], results[1].maps['res3'])  # behind batch norm and dropout
    assert torch.equal(results[0].tokens, results[1].tokens)


def test_tower_is_not_in_the_optimizer(model):
    held = {id(value) for group in optimizer_of(model).optimizer.param_groups for value in group['params']}
    assert not held & {id(value) for value in model.enhancers[0].tower.network.parameters()}
    assert {id(value) for value in model.parameters()} == held


def test_tower_is_not_in_the_state_dict(model):
    keys = [key for key in model.state_dict() if key.startswith('enhancers')]
    assert keys == ['enhancers.0.tower.frozen_record']


def test_another_tower_is_refused_on_load(model):
    other = tiny.build(tiny.enhanced(tiny.tiny(5, ('res3', 'res4'), seed=8)))
    with pytest.raises(ValueError, match=r'was made with the frozen network tiny .* but this model holds tiny'):
        model.load_state_dict(other.state_dict())


def test_averaged_copy_shares_the_tower(model):
    average = ExponentialMovingAverage(model)
    before = snapshot(model)
    average.update_parameters(model)
    assert average.module.enhancers[0].tower.network is model.enhancers[0].tower.network
    assert not any('stem' in key for key in average.state_dict())
    assert_frozen(model, before)


DISTRIBUTED = '''
import logging, os, sys
logging.disable(logging.INFO)
sys.path[:0] = [r'{tests}', r'{root}']
import frozenmm, torch
import tiny_dino as tiny
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
rank = int(sys.argv[1])
dist.init_process_group('gloo', init_method=r'file://{rendezvous}', rank=rank, world_size=2)
model = tiny.build(tiny.enhanced(tiny.tiny(5, ('res4',))))
tower = model.enhancers[0].tower.network
before = {{key: value.clone() for key, value in tower.state_dict().items()}}
wrapped = MMDistributedDataParallel(model)
names = {{name for name, _ in wrapped.named_parameters()}} | {{name for name, _ in wrapped.named_buffers()}}
assert not any('stem' in name for name in names), names
sent = wrapped.module.state_dict()
optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-3)
for step in range(2):
    # the second rank has no target at all; every parameter must still take part
    data = model.data_preprocessor(tiny.batch(seed=rank, targets=(2, 1) if rank == 0 else (0, 0)), True)
    model.train()
    losses = wrapped(**data, mode='loss')
    optimizer.zero_grad()
    sum(value.sum() for value in losses.values()).backward()
    optimizer.step()
mine = torch.cat([value.detach().flatten() for value in model.parameters()])
both = [torch.empty_like(mine) for _ in range(2)]
dist.all_gather(both, mine)
assert torch.equal(both[0], both[1])
assert all(torch.equal(value, before[key]) for key, value in tower.state_dict().items())
dist.barrier()
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end, after everything above has been checked
'''


def test_two_processes_train_without_the_tower_and_without_targets_on_one(tmp_path):
    root = Path(__file__).resolve().parents[2]
    script = DISTRIBUTED.format(tests=Path(__file__).parent, root=root, rendezvous=tmp_path / 'rendezvous')
    processes = [subprocess.Popen([sys.executable, '-c', script, str(rank)], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) for rank in range(2)]
    results = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), [error[-2000:] for _, error in results]


@DATASETS.register_module(force=True)
class TinyPictures(Dataset):
    """Four random pictures with boxes."""

    metainfo = dict(classes=('a', 'b', 'c'))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        data = tiny.batch(((64, 64),), seed=index, targets=(2,))
        return dict(inputs=data['inputs'][0], data_samples=data['data_samples'][0])


def runner(work_dir, epochs, **changes):
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                  dataset=dict(type='frozenmm.TinyPictures'), collate_fn=dict(type='pseudo_collate'))
    return Runner(tiny.enhanced(tiny.tiny(5, ('res4',))), str(work_dir), train_dataloader=loader,
                  train_cfg=dict(by_epoch=True, max_epochs=epochs), default_scope='mmdet', log_level='ERROR',
                  optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
                  custom_hooks=[dict(type='EMAHook')], randomness=dict(seed=0),
                  experiment_name=f'{work_dir.name}_{epochs}_{len(changes)}', **changes)


def test_train_save_load_and_resume_with_mmengine(tmp_path):
    checkpoint.open_checkpoints_safely()
    first = runner(tmp_path, 1)
    before = snapshot(first.model)
    trained = first.train()
    assert_frozen(trained, before)
    path = tmp_path / 'epoch_1.pth'
    content = checkpoint.load_checkpoint_file(path)
    for part in 'state_dict', 'ema_state_dict':
        assert not any('tower' in key and not key.endswith('frozen_record') for key in content[part]), part
    resumed = runner(tmp_path, 2, resume=True, load_from=str(path))
    again = resumed.train()
    assert resumed.epoch == 2
    assert_frozen(again, before)
    fresh = tiny.build(tiny.enhanced(tiny.tiny(5, ('res4',))), seed=5)
    content = checkpoint.load_checkpoint_file(tmp_path / 'epoch_2.pth')
    fresh.load_state_dict(content['state_dict'], strict=True)  # the averaged weights
    averaged = tiny.outputs(fresh, tiny.batch())[0]
    # mmengine stores the weights of the training itself under this name
    fresh.load_state_dict({key[len('module.'):]: value for key, value in content['ema_state_dict'].items()
                           if key.startswith('module.')}, strict=True)
    expected = tiny.outputs(again, tiny.batch())[0]
    assert torch.equal(tiny.outputs(fresh, tiny.batch())[0], expected) and not torch.equal(averaged, expected)
