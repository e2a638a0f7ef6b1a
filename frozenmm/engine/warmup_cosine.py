"""Learning rate and weight decay by iteration: linear warm-up, then half a cosine; and the parameter groups for it."""
from __future__ import annotations

import math

from mmengine.hooks import Hook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.runner import Runner
from torch import nn

from frozenmm.errors import UserError
from frozenmm.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS


def warmup_cosine(iteration: int, *, base: float, final: float, total: int, warmup: int = 0) -> float:
    """The scheduled value of an iteration.

    Args:
        iteration: counted from 0; past the end the last value holds.
        base: value at the end of the warm-up.
        final: value that the cosine approaches after `total` iterations.
        total: number of iterations.
        warmup: iterations of linear growth from 0 to `base`, both ends included: `base` occurs twice in a row.
    """
    iteration = min(iteration, total - 1)
    if iteration < warmup:
        return base * iteration / max(warmup - 1, 1)
    progress = (iteration - warmup) / (total - warmup)
    return final + 0.5 * (base - final) * (1 + math.cos(math.pi * progress))


def set_schedule(groups: list[dict], lr: float, weight_decay: float) -> None:
    """Write learning rate and weight decay into the scheduled parameter groups, decay only where a group decays."""
    for group in groups:
        if group.get('scheduled'):
            group['lr'] = lr
            if group.get('decays'):
                group['weight_decay'] = weight_decay


@HOOKS.register_module()
class WarmupCosineHook(Hook):
    """Sets learning rate and weight decay of the scheduled parameter groups before every iteration.

    Groups are those that `FusionOptimWrapperConstructor` marks with `scheduled=True`; a group's weight decay is set
    only if it decays at all.

    Args:
        lr: `(base, final)` of the learning rate.
        weight_decay: `(first, last)` of the weight decay, no warm-up.
        warmup: iterations of warm-up of the learning rate.
        total: number of iterations, the whole training by default.

    Source: Fusioner, training schedule.
    """

    priority = 'VERY_HIGH'

    def __init__(self, lr: tuple[float, float] = (1e-3, 2e-6), weight_decay: tuple[float, float] = (0.01, 0.4), *,
                 warmup: int = 0, total: int | None = None) -> None:
        self.lr = tuple(lr)
        self.weight_decay = tuple(weight_decay)
        self.warmup = warmup
        self.total = total

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Set the values of this iteration."""
        total = self.total or runner.max_iters
        lr = warmup_cosine(runner.iter, base=self.lr[0], final=self.lr[1], total=total, warmup=self.warmup)
        decay = warmup_cosine(runner.iter, base=self.weight_decay[0], final=self.weight_decay[1], total=total)
        set_schedule(runner.optim_wrapper.param_groups, lr, decay)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FusionOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Parameter groups of Fusioner: scheduled with and without decay, and constant ones.

    Biases and other one-dimensional parameters do not decay. Parameters below a name in `paramwise_cfg['constant']`
    (the decoder, officially) keep the optimizer's learning rate and never decay; Adam without decay equals AdamW there.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper for a model."""
        constant = tuple(self.paramwise_cfg.get('constant', ()))
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                scheduled = not any(part in name.split('.') for part in constant)
                decays = scheduled and parameter.dim() > 1 and not name.endswith('.bias')
                groups.setdefault((scheduled, decays), []).append(parameter)
        if not groups:
            raise UserError('the model has no trainable parameters; everything in it is frozen')
        config = dict(self.optimizer_cfg)
        config['params'] = [
            dict(params=params, scheduled=scheduled, decays=decays, **({} if decays else dict(weight_decay=0.0)))
            for (scheduled, decays), params in groups.items()
        ]
        wrapper = dict(self.optim_wrapper_cfg, optimizer=OPTIMIZERS.build(config))
        wrapper.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(wrapper)
