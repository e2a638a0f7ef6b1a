"""`AccelerateHook`: one config line that lets a model run on the operators of frozenmm."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from frozenmm.ops.accelerate import accelerate
from frozenmm.registry import HOOKS


@HOOKS.register_module()
class AccelerateHook(Hook):
    """Calls `frozenmm.ops.accelerate` on the runner's model before anything runs.

    In a config: `custom_hooks = [dict(type='frozenmm.AccelerateHook')]`. Training, validation, testing and the EMA copy
    are covered; checkpoints stay interchangeable with those of the plain model.
    """

    priority = 'VERY_HIGH'  # before hooks that copy the model, such as the EMA hook

    def before_run(self, runner: Runner) -> None:
        """Replace what can be replaced; logs one line."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        accelerate(model)
