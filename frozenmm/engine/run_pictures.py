"""What a training leaves to look at: its curves, and samples of its last validation."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from frozenmm.engine.beside_truth import BesideTruthHook
from frozenmm.engine.checkpoints import main_metric
from frozenmm.errors import UserError
from frozenmm.registry import HOOKS
from frozenmm.visualization.curves import plot_scalars, read_scalars


@HOOKS.register_module()
class RunPicturesHook(Hook):
    """Writes `curves.png` into the work folder when a training ends: loss, learning rate and the main metric."""

    priority = 'LOWEST'  # after the loggers have written the last values

    def after_train(self, runner: Runner) -> None:
        """Draw it; a run that logged nothing, as one shorter than the logger's interval, has no curves."""
        if runner.rank != 0:
            return
        try:
            scalars = read_scalars(runner.log_dir)
        except UserError as error:
            runner.logger.warning(f'no curves are drawn: {error}')
            return
        keys: list[str] = [key for key in ('loss', 'lr') if key in scalars]
        validated = main_metric({key: values[-1][1] for key, values in scalars.items()
                                 if 'loss' not in key.lower() and key not in keys})
        keys += [validated[0]] if validated else []
        if keys:
            out = plot_scalars([runner.log_dir], keys, Path(runner.work_dir, 'curves.png'))
            runner.logger.info(f'curves: {out}')


@HOOKS.register_module()
class SamplesHook(BesideTruthHook):
    """Draws samples of every validation into a folder, each time over the last ones.

    What cannot be drawn, as boxes that the pipeline gives no truth for, is said once; it never ends a training.

    Args:
        folder: gets one PNG per image.
        count: number of images.
    """

    def __init__(self, folder: str, count: int = 8) -> None:
        super().__init__(folder, count, score=None)
        self._refused = False

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                       outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the images of a batch that are still due."""
        if self._refused or runner.rank != 0:
            return
        try:
            super().after_val_iter(runner, batch_idx, data_batch, outputs)
        except Exception as error:  # of any model and data set; hours of training are worth more than a picture
            self._refused = True
            runner.logger.warning(f'no samples of the validation are drawn: {type(error).__name__}: {error}')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Nothing: tests have `--show-dir`."""
