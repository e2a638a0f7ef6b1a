"""Training for a given time: the learning rate follows the share of the budget that is spent."""
from __future__ import annotations

import math
import time

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner

from frozenmm.deprecation import warn_renamed
from frozenmm.errors import UserError
from frozenmm.registry import HOOKS, LOOPS

_SPENT = 'time_budget_seconds'


@LOOPS.register_module()
class BudgetTrainLoop(IterBasedTrainLoop):
    """MMEngine's iteration-based loop, whose end may be moved while it runs.

    In a config: `train_cfg = dict(type='frozenmm.BudgetTrainLoop', max_iters=..., val_interval=...)`.
    """

    def end_at(self, iterations: int) -> None:
        """Make this the number of iterations; the last one validates and saves as ever."""
        self._max_iters = iterations


def with_movable_end(cfg: Config) -> None:
    """Give a config that has a `TimeBudgetHook` and MMEngine's loop our loop, in place; it was enough until 0.2."""
    hooks = cfg.get('custom_hooks') or []
    loop = cfg.get('train_cfg') or {}
    if loop.get('type') in ('IterBasedTrainLoop', 'mmengine.IterBasedTrainLoop') and any(
            str(hook.get('type')).rpartition('.')[2] == 'TimeBudgetHook' for hook in hooks if isinstance(hook, dict)):
        warn_renamed('the train_cfg of a config with TimeBudgetHook', 'frozenmm.BudgetTrainLoop', removed_in='0.3')
        loop['type'] = 'frozenmm.BudgetTrainLoop'


@HOOKS.register_module()
class TimeBudgetHook(Hook):
    """Ends training after a number of minutes, so that models of different cost can be compared fairly.

    Only training time counts (data loading included); validation and checkpoints do not. The learning rate rises
    linearly and then falls along a half cosine, as a function of the share of the budget that is spent, so that a slow
    model ends with the same low rate as a fast one. The iteration that exhausts the budget becomes the last one: final
    validation and checkpoint happen as ever. The time spent is stored in checkpoints, so a resumed run goes on where it
    was. Use it without `param_scheduler` and with `train_cfg = dict(type='frozenmm.BudgetTrainLoop', ...)`.

    Args:
        minutes: the budget; exclusive with `iterations`.
        iterations: the budget as a number of iterations, for comparisons at equal steps.
        warmup: share of the budget in which the rate rises from 0.
        final: rate at the end, as a share of the full one.

    Raises:
        UserError: not exactly one budget, or one that is not positive.
    """

    # before all others, so that they already see the last iteration as the last
    priority = 'VERY_HIGH'

    def __init__(self, minutes: float | None = None, iterations: int | None = None, *, warmup: float = 0.05,
                 final: float = 0.01) -> None:
        budget = iterations if minutes is None else minutes
        if budget is None or None not in (minutes, iterations):
            raise UserError(f'give either minutes or iterations, got minutes={minutes} and iterations={iterations}')
        if budget <= 0:
            raise UserError(f'the budget must be positive, got minutes={minutes}, iterations={iterations}')
        self.minutes = minutes
        self.iterations = iterations
        self.warmup = warmup
        self.final = final
        self.seconds = 0.0
        self._mark: float | None = None  # None while the clock stands

    def before_train(self, runner: Runner) -> None:
        """Take up the time that a resumed checkpoint has spent already.

        Raises:
            UserError: a loop whose end cannot be moved.
        """
        if not hasattr(runner.train_loop, 'end_at'):
            raise UserError('TimeBudgetHook moves the end of the training and needs train_cfg=dict(type='
                            f'\'frozenmm.BudgetTrainLoop\', ...), got a {type(runner.train_loop).__name__}')
        self.seconds = float(runner.message_hub.runtime_info.get(_SPENT, 0.0))
        self._mark = None  # a resumed loop first skips the batches that it has seen
        if self.iterations is not None:
            runner.train_loop.end_at(self.iterations)
        elif self.share(runner) >= 1:
            runner.train_loop.end_at(runner.iter)

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
        self.seconds += now - (self._mark or now)
        self._mark = now
        runner.message_hub.update_info(_SPENT, self.seconds)
        if self.minutes is None:
            return
        done = runner.iter + 1
        if self.share(runner) >= 1:
            print_log(f'the budget of {self.minutes:g} min is spent after {done} iterations', logger='current')
            runner.train_loop.end_at(done)
        else:
            # an estimate, so that the progress line and its ETA are right
            runner.train_loop.end_at(max(done + 1, round(done / self.share(runner))))

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
        return self.seconds / (60 * self.minutes) if self.minutes is not None else runner.iter / (self.iterations or 1)


def _wrappers(runner: Runner) -> list:
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if hasattr(wrapper, 'values') else [wrapper]
