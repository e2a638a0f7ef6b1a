from __future__ import annotations

import time

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from frozenmm.engine import TimeBudgetHook
from frozenmm.engine.time_budget import with_movable_end
from frozenmm.errors import UserError


class Numbers(Dataset):

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.full((1, ), float(index)))


class Slow(BaseModel):
    """A linear layer whose step takes a given time."""

    def __init__(self, seconds):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seconds = seconds

    def forward(self, inputs, mode='loss'):
        time.sleep(self.seconds)
        return dict(loss=self.layer(inputs).square().mean())


class Rates(Hook):

    def __init__(self):
        self.rates = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])


def _runner(folder, budget, rates, seconds=0.02, resume=False, loop='frozenmm.BudgetTrainLoop'):
    return Runner(
        model=Slow(seconds), work_dir=str(folder), train_dataloader=dict(
            dataset=Numbers(), batch_size=2, num_workers=0,
            sampler=dict(type='InfiniteSampler'), collate_fn=dict(type='default_collate')),
        train_cfg=dict(type=loop, max_iters=10000, val_interval=10000),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), custom_hooks=[budget, rates],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=10000)),
        default_scope='mmengine', experiment_name=f'budget_{time.monotonic_ns()}', log_level='ERROR', resume=resume)


@pytest.fixture
def trusted(tmp_path):
    from frozenmm.compat.checkpoint import open_checkpoints_safely
    open_checkpoints_safely()
    return tmp_path


def test_training_ends_with_the_time_and_writes_its_checkpoint(trusted):
    budget, rates = TimeBudgetHook(minutes=0.3 / 60), Rates()
    runner = _runner(trusted, budget, rates)
    runner.train()
    assert 0.3 <= budget.seconds < 1.5
    assert runner.iter == len(rates.rates) < 16
    assert (trusted / f'iter_{runner.iter}.pth').is_file()


def test_the_rate_rises_and_falls_with_the_share_of_the_budget(trusted):
    rates = Rates()
    _runner(trusted, TimeBudgetHook(iterations=40, warmup=0.25, final=0.1), rates, seconds=0).train()
    assert len(rates.rates) == 40
    top = rates.rates.index(max(rates.rates))
    assert top == 10 and rates.rates[top] == pytest.approx(0.1)
    assert rates.rates[:top + 1] == sorted(rates.rates[:top + 1])
    assert rates.rates[top:] == sorted(rates.rates[top:], reverse=True)
    assert rates.rates[-1] == pytest.approx(0.01, rel=0.2)


def test_a_resumed_run_has_only_the_time_that_is_left(trusted):
    budget = TimeBudgetHook(minutes=0.3 / 60)
    runner = _runner(trusted, budget, Rates())
    runner.train()
    again, rates = TimeBudgetHook(minutes=0.3 / 60), Rates()
    resumed = _runner(trusted, again, rates, resume=True)
    resumed.train()
    assert rates.rates == [] and resumed.iter == runner.iter
    longer, rates = TimeBudgetHook(minutes=0.6 / 60), Rates()
    _runner(trusted, longer, rates, resume=True).train()
    assert longer.seconds >= 0.6 and rates.rates
    assert longer.seconds - budget.seconds < 0.9


def test_time_outside_training_steps_does_not_count():
    budget = TimeBudgetHook(minutes=1)
    runner = type('Runner', (), {})()
    runner.iter, runner.message_hub = 0, type('Hub', (), {'runtime_info': {}, 'update_info': lambda *args: None})()
    runner.train_loop, runner.optim_wrapper = type('Loop', (), {'end_at': lambda self, iterations: None})(), {}
    budget.before_train(runner)
    for stop in budget.before_val, lambda runner: budget.before_save_checkpoint(runner, {}):
        stop(runner)
        time.sleep(0.05)
        budget.before_train_iter(runner, 0)
        budget.after_train_iter(runner, 0)
    assert budget.seconds < 0.05


def test_a_loop_whose_end_cannot_be_moved_is_refused_with_the_one_that_can(trusted):
    runner = _runner(trusted, TimeBudgetHook(iterations=2), Rates(), loop='IterBasedTrainLoop')
    with pytest.raises(UserError, match="needs train_cfg=.*frozenmm.BudgetTrainLoop.*got a IterBasedTrainLoop"):
        runner.train()


def test_a_config_of_the_last_release_gets_the_loop_and_a_word():
    cfg = Config(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=3),
                      custom_hooks=[dict(type='frozenmm.TimeBudgetHook', minutes=1)]))
    with pytest.warns(FutureWarning, match='frozenmm.BudgetTrainLoop'):
        with_movable_end(cfg)
    assert cfg.train_cfg.type == 'frozenmm.BudgetTrainLoop'
    plain = Config(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=3), custom_hooks=[dict(type='EMAHook')]))
    with_movable_end(plain)
    assert plain.train_cfg.type == 'IterBasedTrainLoop'


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(), 'either minutes or iterations'),
    (dict(minutes=1, iterations=2), 'either minutes or iterations'),
    (dict(minutes=0), 'must be positive'),
    (dict(iterations=-1), 'must be positive'),
])
def test_impossible_budgets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimeBudgetHook(**arguments)
