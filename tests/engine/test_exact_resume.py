"""A resumed training draws what an uninterrupted one draws."""
from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from frozenmm.compat.checkpoint import open_checkpoints_safely

SEED = dict(seed=5)


class Noisy(Dataset):
    """Numbers with noise from all three generators, as augmentation draws it."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + float(torch.rand(()))
        return dict(inputs=torch.full((1, ), index + noise))


class Dropped(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=(self.layer(torch.nn.functional.dropout(inputs)) - 3).square().mean())


def train(folder, loop, *, until, resume=False, randomness=SEED, hook=True):
    """The trained weights."""
    open_checkpoints_safely()  # as our tools do, so that the runner opens its own checkpoints on current torch
    torch.manual_seed(0)  # equal initial weights
    by_epoch = 'max_epochs' in loop
    runner = Runner(
        model=Dropped(), work_dir=str(folder), train_cfg={**loop, **until}, resume=resume,
        train_dataloader=dict(dataset=Noisy(), batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'),
                              sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3, momentum=0.9)), randomness=randomness,
        custom_hooks=[dict(type='frozenmm.ExactResumeHook')] if hook else [],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch)),
        cfg=dict(randomness=randomness), experiment_name=f'{folder.name}-{random.random()}')
    runner.train()
    return torch.cat([parameter.detach().flatten() for parameter in runner.model.parameters()])


@pytest.mark.parametrize(('loop', 'half', 'whole'), [
    (dict(type='IterBasedTrainLoop', max_iters=0), dict(max_iters=3), dict(max_iters=6)),
    (dict(type='EpochBasedTrainLoop', max_epochs=0), dict(max_epochs=1), dict(max_epochs=3)),
])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, loop, half, whole):
    uninterrupted = train(tmp_path / 'whole', loop, until=whole)
    train(tmp_path / 'cut', loop, until=half)
    assert torch.equal(train(tmp_path / 'cut', loop, until=whole, resume=True), uninterrupted)

    train(tmp_path / 'plain', loop, until=half, hook=False)
    assert not torch.equal(train(tmp_path / 'plain', loop, until=whole, resume=True, hook=False),
                           train(tmp_path / 'plain whole', loop, until=whole, hook=False))


def test_a_run_without_a_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'needs a fixed seed.*randomness = dict\(seed=0\)'):
        train(tmp_path, dict(type='IterBasedTrainLoop', max_iters=1), until={}, randomness=dict(seed=None))
