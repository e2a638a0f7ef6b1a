"""A short progress line for runs whose full log goes to a file."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from frozenmm.datasets.progress import Progress
from frozenmm.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Writes iteration, loss and time left to the terminal; see `Progress`.

    Args:
        title: begins every note.
        every: seconds between two lines where the output is no terminal.
    """

    priority = 'LOW'

    def __init__(self, title: str = '', every: float = 15.0) -> None:
        self.title = title
        self.every = every
        self._progress = Progress(0)

    def before_train(self, runner: Runner) -> None:
        """Start to count, from where a resumed run is."""
        self._progress = Progress(runner.max_iters, self.every, unit='iterations', start=runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None,
                         outputs: dict | None = None) -> None:
        """Report a training step."""
        def note() -> str:  # reads the loss, which waits for the device
            loss = torch.as_tensor(outputs['loss']).item() if outputs and 'loss' in outputs else float('nan')
            return self._titled(f'training, loss {loss:.2f}')

        self._progress.total = runner.max_iters  # a budget of time moves the end
        self._progress.add(1, note)

    def before_test(self, runner: Runner) -> None:
        """Start to count."""
        self._progress = Progress(len(runner.test_dataloader), self.every, unit='batches')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: object = None,
                        outputs: Sequence | None = None) -> None:
        """Report a test step."""
        self._progress.add(1, self._titled('testing'))

    def _titled(self, text: str) -> str:
        return f'{self.title} {text}' if self.title else text
