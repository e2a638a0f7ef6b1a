"""`ExactResumeHook`: a training that was interrupted ends with the weights of one that was not."""
from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from frozenmm.errors import UserError
from frozenmm.registry import HOOKS


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Draws random numbers anew for every step, so that a resumed run repeats what an uninterrupted one would draw.

    Checkpoints of MMEngine hold weights, optimizer and schedule, but not the state of the random number generators that
    augmentation, denoising queries and dropout draw from. With this hook that state follows from seed, rank and number
    of the step (of the epoch in epoch-based training) alone. On resuming, MMEngine's iteration-based loop passes over
    the images that were seen; they draw what they drew then. On one machine, with the same threads and deterministic
    kernels (`randomness=dict(seed=..., deterministic=True)` on a GPU), the weights are equal bit for bit.

    Not covered: epoch-based training with `persistent_workers=True`, whose workers go on drawing from epoch to epoch.

    In a config: `custom_hooks = [dict(type='frozenmm.ExactResumeHook')]` and `randomness = dict(seed=0)`.
    """

    priority = 'VERY_HIGH'  # before hooks that draw at the start of an epoch

    def before_run(self, runner: Runner) -> None:
        """Check that a seed is set.

        Raises:
            UserError: none is, so that every process would draw its own.
        """
        if (runner.cfg.get('randomness') or {}).get('seed') is None:
            raise UserError('ExactResumeHook needs a fixed seed, but the config sets none; add '
                            'randomness = dict(seed=0)')

    def before_train(self, runner: Runner) -> None:
        """Have the loop's batches, those that are passed over included, start from their own random state."""
        loop = runner.train_loop
        if hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator = _SeededBatches(loop.dataloader_iterator, runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        """Start an epoch from its own random state."""
        _seed(runner.seed, runner.epoch)


class _SeededBatches:
    """An endless iterator that seeds all generators before every batch."""

    def __init__(self, batches: Iterator[Any], seed: int) -> None:
        self._batches, self._seed, self._step = batches, seed, 0

    def __iter__(self) -> _SeededBatches:
        return self

    def __next__(self) -> Any:
        _seed(self._seed, self._step)
        self._step += 1
        return next(self._batches)


def _seed(*numbers: int) -> None:
    """Seed all generators from these numbers and the rank."""
    value = int(np.random.SeedSequence((*numbers, get_rank())).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
