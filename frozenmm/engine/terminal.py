"""What a training or a test says on the terminal: a short overview, then its progress; the log has the rest."""
from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from frozenmm.engine.parameters import count_parameters
from frozenmm.foundation import frozen_modules

_NOISE = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias', 'Exp name:')
"""Records of others that nobody who reads them can act on."""
_WARM = 4
"""Iterations that warm up before the time of one is measured."""
_FORESEEN = 8


class TerminalFilter(logging.Filter):
    """Lets warnings pass, and information once `opened` is set: before that it is environment, config and hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        shown = self.opened or record.levelno >= logging.WARNING or getattr(record, 'terminal', False)
        return shown and not record.getMessage().startswith(_NOISE)


class QuietRunner(Runner):
    """MMEngine's runner, whose terminal stays quiet until training or testing begins; the log file gets everything."""

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **settings: Any) -> MMLogger:
        """The logger, with a `TerminalFilter` on what it shows; settings go to MMEngine's `build_logger`."""
        logger = super().build_logger(log_level, log_file, **settings)
        self.terminal = TerminalFilter()
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                # a logger of this name may have served another runner
                for earlier in [found for found in handler.filters if isinstance(found, TerminalFilter)]:
                    handler.removeFilter(earlier)
                handler.addFilter(self.terminal)
        return logger


class _WithoutChatter(io.TextIOBase):
    """Standard output without the lines that the reader of COCO files prints about itself; all others pass."""

    chatter = ('loading annotations into memory', 'Done (t=', 'creating index', 'index created', 'DONE (t=',
               'Loading and preparing', 'Running per image evaluation', 'Evaluate annotation type',
               'Accumulating evaluation results')

    def __init__(self, terminal: TextIO) -> None:
        self.terminal, self._line = terminal, ''

    def write(self, text: str) -> int:
        """Pass on whole lines."""
        *lines, self._line = (self._line + text).split('\n')
        for line in lines:
            if not line.startswith(self.chatter):
                self.terminal.write(f'{line}\n')
        return len(text)

    def flush(self) -> None:
        """Pass on the rest of a line too, as a progress bar is."""
        if self._line and not any(chatter.startswith(self._line[:8]) for chatter in self.chatter):
            self.terminal.write(self._line)
            self._line = ''
        self.terminal.flush()

    def isatty(self) -> bool:
        """Whether it ends in a terminal."""
        return self.terminal.isatty()


@contextmanager
def without_noise() -> Iterator[None]:
    """No warnings of other packages about their own code, and no chatter of the reader of COCO files."""
    with warnings.catch_warnings(), redirect_stdout(_WithoutChatter(sys.stdout)):
        warnings.filterwarnings('ignore', message='torch.meshgrid')  # mmdet's proposals, every time
        warnings.filterwarnings('ignore', category=UserWarning, module=r'(mmengine|mmcv|mmdet|mmseg)\.')
        warnings.filterwarnings('ignore', category=FutureWarning, module=r'(torch|mmengine|mmcv|mmdet|mmseg)\.')
        yield


class OverviewHook(Hook):
    """Says before the first iteration what is frozen, what is trained, on what, and where the results go.

    A few iterations later it says how long the training takes.
    """

    priority = 'LOWEST'  # after what other hooks say

    def __init__(self) -> None:
        self._first = self._start = 0.0
        self._begun = 0

    def before_train(self, runner: Runner) -> None:
        """Say it."""
        runner.logger.info(overview(runner), extra={'terminal': True})
        _open(runner)
        self._begun = runner.iter

    def before_test(self, runner: Runner) -> None:
        """Let the terminal show the test."""
        _open(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None,
                         outputs: object = None) -> None:
        """Say how long it takes, once that can be known."""
        done = runner.iter + 1 - self._begun
        if done == _WARM:
            self._start = time.perf_counter()
        elif done == _FORESEEN:
            seconds = (time.perf_counter() - self._start) / (_FORESEEN - _WARM)
            left = (runner.max_iters - runner.iter - 1) * seconds
            runner.logger.info(f'one iteration takes {seconds:.2f} s, so {_duration(left)} are left for training')


def overview(runner: Runner) -> str:
    """The overview of a training that is about to begin, at most a dozen lines."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    trained, frozen = count_parameters(model)
    names = sorted({module.name for module in frozen_modules(model).values()})
    device = next((parameter.device for parameter in model.parameters()), 'cpu')
    length = f'{runner.max_iters} iterations' if runner.train_loop.__class__.__name__ != 'EpochBasedTrainLoop' \
        else f'{runner.max_epochs} epochs, {runner.max_iters} iterations'
    begun = f', {runner.iter} of them done' if runner.iter else ''
    lines = [f'Training {type(model).__name__} on {device}',
             f'  frozen   {_millions(frozen)} parameters{": " if names else ""}{", ".join(names)}',
             f'  trained  {_millions(trained)} parameters',
             f'  data     {_data(runner)}',
             f'  length   {length}{begun}',
             f'  results  {runner.work_dir}: checkpoints; curves.png and samples/ at the end',
             f'  log      {runner.log_dir}']
    return '\n'.join(['', *lines, ''])


def _data(runner: Runner) -> str:
    loader = runner.train_loop.dataloader
    text = f'{len(loader.dataset)} images in batches of {_batch(loader)}'
    if runner.val_loop is not None:
        text += f', {len(runner.val_loop.dataloader.dataset)} for validation'
    classes = getattr(loader.dataset, 'metainfo', {}).get('classes') or ()
    if classes:
        shown = ', '.join(str(name) for name in classes[:6])
        text += f'; {len(classes)} classes: {shown}{", ..." if len(classes) > 6 else ""}'
    return text


def _batch(loader: DataLoader) -> str:
    if loader.batch_size is not None:
        return str(loader.batch_size)
    return str(getattr(loader.batch_sampler, 'batch_size', '?'))  # the sampler makes the batches


def _open(runner: Runner) -> None:
    if isinstance(runner, QuietRunner):
        runner.terminal.opened = True


def _millions(count: int) -> str:
    return f'{count / 1e6:.2f} M'


def _duration(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 120 else f'{seconds / 60:.0f} min' if seconds < 7200 \
        else f'{seconds / 3600:.1f} h'
