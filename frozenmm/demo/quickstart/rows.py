"""One row of the comparison: a config trained within a budget, tested and drawn; finished rows are not run again."""
from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from frozenmm.compat.files import write_whole
from frozenmm.engine.beside_truth import BesideTruthHook
from frozenmm.engine.launch import build_runner, load_config, run_training
from frozenmm.engine.parameters import count_parameters
from frozenmm.engine.time_budget import TimeBudgetHook
from frozenmm.errors import UserError


@dataclass(frozen=True)
class Row:
    """A row of the comparison.

    Attributes:
        letter: of the row.
        meaning: what it is, in words.
        config: file below `configs/quickstart`.
        iterations: of the recipe, so many that all rows cost the same: 62 s on the quiet two cores where `seconds` was
            measured, 123 s on the slowest machine seen.
        seconds: per iteration, two threads on two cores that do nothing else. Machines differ by a factor of two.
    """

    letter: str
    meaning: str
    config: str
    iterations: int
    seconds: float


ROWS = (
    Row('a', 'own small backbone, from scratch', 'dino_scratch_scenes.py', 110, 0.561),
    Row('b', 'the same + frozen EfficientNet-Lite0 as enhancer', 'dino_enhanced_scenes.py', 96, 0.642),
    Row('c', 'frozen EfficientNet-Lite0 as the only backbone', 'dino_frozen_scenes.py', 148, 0.418),
)


@dataclass(frozen=True)
class Budget:
    """What every row may spend: the iterations of the recipe, or else minutes of training or one number of iterations.

    Raises:
        UserError: minutes and iterations at once.
    """

    minutes: float | None = None
    iterations: int | None = None

    def __post_init__(self) -> None:
        if None not in (self.minutes, self.iterations):
            raise UserError(f'give minutes or iterations, not both, got {self.minutes} and {self.iterations}')

    def __str__(self) -> str:
        if self.minutes is not None:
            return f'{self.minutes:g} min'
        return 'recipe' if self.iterations is None else f'{self.iterations} iterations'

    def of_row(self, row: Row) -> dict[str, float | int | None]:
        """Arguments of `TimeBudgetHook` for a row."""
        recipe = row.iterations if self.minutes is None else None
        return dict(minutes=self.minutes, iterations=self.iterations or recipe)


@dataclass
class RowResult:
    """What came out of a row.

    Attributes:
        letter: of the row.
        meaning: of the row.
        ap: COCO box AP (IoU 0.50:0.95) on the test images, 0..1.
        ap50: AP at IoU 0.50.
        iterations: training iterations within the budget.
        seconds: training time.
        trained: number of trained parameters.
        frozen: number of frozen parameters.
        seed: of the run.
        threads: that it computed with.
        shown: image file -> boxes and labels of truth and prediction, for the pictures.
    """

    letter: str
    meaning: str
    ap: float
    ap50: float
    iterations: int
    seconds: float
    trained: int
    frozen: int
    seed: int
    threads: int
    shown: dict[str, dict]


def run_row(row: Row, budget: Budget, folder: str | Path, *, configs: str | Path, data_root: str | Path, seed: int = 0,
            options: Sequence[str] = (), pictures: int = 8) -> RowResult:
    """Train and test a row, or read what it gave when it is finished already.

    An interrupted row goes on from its last checkpoint.

    Args:
        row: which one.
        budget: what it may spend.
        folder: gets logs, checkpoints, pictures and `result.json`.
        configs: folder of the configs.
        data_root: folder of the generated scenes.
        seed: of initialisation and sampling.
        options: `key=value` changes of the config.
        pictures: number of test images to draw.
    """
    folder = Path(folder)
    cfg = _row_config(row, budget, folder, Path(configs), str(data_root), seed, options)
    cfg.custom_hooks.append(dict(type='frozenmm.BesideTruthHook', folder=str(folder / 'pictures'), count=pictures,
                                 score=None, title=f'({row.letter}) {row.meaning}'))
    digest = hashlib.sha256(cfg.pretty_text.encode()).hexdigest()[:16]
    result_file = folder / 'result.json'
    if result_file.is_file():
        stored = json.loads(result_file.read_text())
        if stored['config'] == digest:
            return RowResult(**stored['result'])
    _forget_other_config(folder, digest)
    cfg.resume = True
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='torch.meshgrid')  # mmdet's proposals, every time
        runner = build_runner(cfg)
        # the reader and the metric of COCO print page after page
        with open(folder / 'console.txt', 'a') as console, redirect_stdout(console):
            run_training(runner)
            metrics = runner.test()
    result = _result(row, runner, metrics, seed)
    write_whole(result_file, json.dumps({'config': digest, 'result': asdict(result)}, indent=1))
    return result


def _row_config(row: Row, budget: Budget, folder: Path, configs: Path, data_root: str, seed: int,
                options: Sequence[str]) -> Config:
    cfg = load_config(configs / row.config, options, work_dir=folder)
    for loader in 'train_dataloader', 'test_dataloader':
        cfg[loader].dataset.data_root = data_root
    cfg.test_evaluator.ann_file = f'{data_root}/annotations/instances_val.json'
    # the test follows at once and uses the same images
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.randomness = dict(seed=seed)
    hooks = [hook for hook in cfg.custom_hooks if hook.type != 'frozenmm.TimeBudgetHook']
    cfg.custom_hooks = [*hooks, dict(type='frozenmm.TimeBudgetHook', **budget.of_row(row)),
                        dict(type='frozenmm.ProgressHook', title=f'({row.letter})')]
    cfg.log_level = 'WARNING'  # the progress line says what a newcomer needs; scalars go to vis_data/
    return cfg


def _forget_other_config(folder: Path, digest: str) -> None:
    """Remove checkpoints that another config or budget left, so that they are not resumed."""
    stamp = folder / 'config.sha256'
    if stamp.is_file() and stamp.read_text() != digest:
        for path in [*folder.glob('*.pth'), folder / 'last_checkpoint', folder / 'result.json']:
            path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)


def _result(row: Row, runner: Runner, metrics: dict, seed: int) -> RowResult:
    budget = next(hook for hook in runner.hooks if isinstance(hook, TimeBudgetHook))
    drawn = next(hook for hook in runner.hooks if isinstance(hook, BesideTruthHook))
    shown = {path: {'truth': {'xyxy': truth.xyxy.tolist(), 'labels': truth.labels.tolist()},
                    'prediction': {'xyxy': found.xyxy.tolist(), 'labels': found.labels.tolist(),
                                   'scores': np.asarray(found.scores).tolist()}} for path, truth, found in drawn.seen}
    trained, frozen = count_parameters(runner.model)
    return RowResult(row.letter, row.meaning, metrics['coco/bbox_mAP'], metrics['coco/bbox_mAP_50'], runner.iter,
                     budget.seconds, trained, frozen, seed, torch.get_num_threads(), shown)
