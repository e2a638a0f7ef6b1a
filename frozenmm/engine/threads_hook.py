"""`ThreadsHook`: a training or test on the CPU uses as many threads as are fastest on a machine that others use too."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from frozenmm.compat.threads import ThreadTuner
from frozenmm.registry import HOOKS


@HOOKS.register_module()
class ThreadsHook(Hook):
    """Measures steps with different numbers of threads and goes on with the fastest; see `ThreadTuner`.

    `frozenmm.engine.launch` adds it to what runs on the CPU, but not to those that promise the same weights bit for
    bit (`ExactResumeHook`, `randomness=dict(deterministic=True)`): sums depend on the number of threads.
    """

    priority = 'VERY_LOW'  # so that only the step itself lies between the two calls

    def __init__(self) -> None:
        self._tuner: ThreadTuner | None = None
        self._start: float | None = None

    def before_train(self, runner: Runner) -> None:
        """Start to measure."""
        self._tuner = ThreadTuner('training')

    def before_test(self, runner: Runner) -> None:
        """Start to measure."""
        self._tuner = ThreadTuner('testing')

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, mode: str = 'train') -> None:
        """Start a step; validations use what training has found."""
        self._start = self._tuner.begin() if self._tuner and mode != 'val' else None

    def _after_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None,
                    mode: str = 'train') -> None:
        """End a step."""
        if self._tuner:
            self._tuner.end(self._start)
