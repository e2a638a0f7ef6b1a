"""A short progress line for runs whose full log goes to a file."""
from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from frozenmm.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Writes iteration, loss and time left to the terminal; a line every few seconds where the output is no terminal.

    Args:
        title: begins every line.
        every: seconds between two lines; a terminal's line is refreshed every second.
    """

    # after IterTimerHook, which computes the time left
    priority = 'LOW'

    def __init__(self, title: str = '', every: float = 15.0) -> None:
        self.title = title
        self.every = every
        self._last = 0.0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None,
                         outputs: dict | None = None) -> None:
        """Report a training step."""
        done, total = runner.iter + 1, runner.max_iters
        if self._due(done == total):
            loss = torch.as_tensor(outputs['loss']).item() if outputs and 'loss' in outputs else float('nan')
            left = runner.message_hub.get_info('eta') if 'eta' in runner.message_hub.runtime_info else 0.0
            self._write(f'training, iteration {done} of about {total}, loss {loss:.2f}, {left:.0f} s left',
                        done == total)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: object = None,
                        outputs: Sequence | None = None) -> None:
        """Report a test step."""
        total = len(runner.test_dataloader)
        if self._due(batch_idx + 1 == total):
            self._write(f'testing, batch {batch_idx + 1} of {total}', batch_idx + 1 == total)

    def _due(self, last: bool) -> bool:
        now = time.monotonic()
        if last or now - self._last >= (min(self.every, 1.0) if self._stream().isatty() else self.every):
            self._last = now
            return True
        return False

    def _write(self, text: str, last: bool) -> None:
        stream = self._stream()
        start, end = ('\r\x1b[K', '\n' if last else '') if stream.isatty() else ('', '\n')
        stream.write(f'{start}{self.title}{": " if self.title else ""}{text}{end}')
        stream.flush()

    @staticmethod
    def _stream() -> TextIO:
        return sys.stderr
