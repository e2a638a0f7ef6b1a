"""Training for a given time: the learning rate follows the share of the budget that is spent."""
from __future__ import annotations

import math
import time

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from frozenmm.registry import HOOKS

_SPENT = 'time_budget_seconds'


@HOOKS.register_module()
class TimeBudgetHook(Hook):
    """Ends training after a number of minutes, so that models of different cost can be compared fairly.

    Only training time counts (data loading included); validation and checkpoints do not. The learning rate rises
    linearly and then falls along a half cosine, as a function of the share of the budget that is spent, so that a slow
    model ends with the same low rate as a fast one. The iteration that exhausts the budget becomes the last one: final
    validation and checkpoint happen as ever. The time spent is stored in checkpoints, so a resumed run goes on where it
    was. Use it without `param_scheduler`.

    Args:
        minutes: the budget; exclusive with `iterations`.
        iterations: the budget as a number of iterations, for comparisons at equal steps.
        warmup: share of the budget in which the rate rises from 0.
        final: rate at the end, as a share of the full one.

    Raises:
        ValueError: not exactly one budget, or one that is not positive.
    """

    # before all others, so that they already see the last iteration as the last
    priority = 'VERY_HIGH'

    def __init__(self, minutes: float | None = None, iterations: int | None = None, *, warmup: float = 0.05,
                 final: float = 0.01) -> None:
        if (minutes is None) == (iterations is None):
            raise ValueError(f'give either minutes or iterations, got minutes={minutes} and iterations={iterations}')
        if (minutes if minutes is not None else iterations) <= 0:
            raise ValueError(f'the budget must be positive, got minutes={minutes}, iterations={iterations}')
        self.minutes = minutes
        self.iterations = iterations
        self.warmup = warmup
        self.final = final
        self.seconds = 0.0
        self._mark: float | None = None  # None while the clock stands

    def before_train(self, runner: Runner) -> None:
        """Take up the time that a resumed checkpoint has spent already."""
        self.seconds = float(runner.message_hub.runtime_info.get(_SPENT, 0.0))
        self._mark = None  # a resumed loop first skips the batches that it has seen
        if self.iterations is not None:
            self._end_at(runner, self.iterations)
        elif self.share(runner) >= 1:
            self._end_at(runner, runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Set the learning rate of every parameter group."""
        if self._mark is None:
            self._mark = time.perf_counter()
        factor = self.factor(self.share(runner))
        for wrapper in _wrappers(runner):
            for group in wrapper.optimizer.param_groups:
                group.setdefault('initial_lr', group['lr'])
                group['lr'] = group['initial_lr'] * factor

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None,
                         outputs: object = None) -> None:
        """Count the time; make this iteration the last one when the budget is spent."""
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now
        runner.message_hub.update_info(_SPENT, self.seconds)
        if self.iterations is not None:
            return
        done = runner.iter + 1
        if self.share(runner) >= 1:
            print_log(f'the budget of {self.minutes:g} min is spent after {done} iterations', logger='current')
            self._end_at(runner, done)
        else:
            # an estimate, so that the progress line and its ETA are right
            self._end_at(runner, max(done + 1, round(done / self.share(runner))))

    def before_val(self, runner: Runner) -> None:
        """Stop the clock until the next iteration."""
        self._mark = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Stop the clock until the next iteration."""
        self._mark = None

    def factor(self, share: float) -> float:
        """Learning rate as a share of the full one, when this share of the budget is spent."""
        if share < self.warmup:
            return max(share / self.warmup, 0.02)
        progress = min((share - self.warmup) / (1 - self.warmup), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))

    def share(self, runner: Runner) -> float:
        """Share of the budget that is spent."""
        return self.seconds / (60 * self.minutes) if self.minutes is not None else runner.iter / self.iterations

    def _end_at(self, runner: Runner, iterations: int) -> None:
        # mmengine's loops have no public way to move their end; `stop_training` would skip validation and checkpoint
        runner.train_loop._max_iters = iterations


def _wrappers(runner: Runner) -> list:
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if hasattr(wrapper, 'values') else [wrapper]
