"""What the benchmarks of Fusioner share: training a config once, tests with true and exchanged names, blind answers."""
from __future__ import annotations

import copy
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.structures import PixelData
from torch import nn

from frozenmm.compat.files import write_whole
from frozenmm.engine.launch import build_runner, run_training

LINEAR = {'model.decode_head.fusion.num_layers': 0, 'model.decode_head.decoder.convolution': False}
"""A head that is linear in its tokens: no fusion, no convolution; the rest as in the config."""


def exchanged(names: Sequence[str], places: Sequence[int], seed: int) -> list[str]:
    """The names with those at the given places (from 1) exchanged so that none keeps its own."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(places))
        if all(order != np.arange(len(places))):
            break
    result = list(names)
    for place, source in zip(places, order):
        result[place - 1] = names[places[source] - 1]
    return result


def train(cfg: Config) -> tuple[nn.Module, float]:
    """The model of a config after its training, which is not validated, and the seconds that this took.

    A model that is in the working folder already is taken from there.
    """
    cfg = copy.deepcopy(cfg)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.visualizer.vis_backends = []
    clock = Path(cfg.work_dir, 'train_seconds.json')
    cfg.resume = clock.is_file()
    start = time.perf_counter()
    runner = build_runner(cfg)
    run_training(runner)
    if not clock.is_file():
        write_whole(clock, json.dumps(time.perf_counter() - start))
    return runner.model, json.loads(clock.read_text())


@contextmanager
def head_set_to(head: nn.Module, mode: str, *, fusion: bool) -> Iterator[None]:
    """The head in a mode; without fusion, the cosine of the frozen pair (with its learned factor) answers alone."""
    before, temperature = head.mode, head.network.temperature
    head.mode = mode
    if not fusion:
        head.network.temperature = math.inf  # logits of the fusion become 0
    try:
        yield
    finally:
        head.mode, head.network.temperature = before, temperature


@torch.no_grad()
def measure(model: nn.Module, cfg: Config, vocabularies: Sequence[Sequence[str]], *, mode: str = 'joint',
            fusion: bool = True) -> list[dict[str, float]]:
    """Scores of a config's validation with each of several vocabularies, from one pass over the data."""
    loader = Runner.build_dataloader(copy.deepcopy(cfg.val_dataloader))
    evaluators = [Evaluator(copy.deepcopy(cfg.val_evaluator)) for _ in vocabularies]
    model.eval()
    with head_set_to(model.decode_head, mode, fusion=fusion):
        for data in loader:
            for names, evaluator in zip(vocabularies, evaluators):
                for sample in data['data_samples']:
                    sample.set_metainfo(dict(class_names=[names[number - 1] for number in sample.class_ids]))
                evaluator.process(model.test_step(data), data)
    return [evaluator.evaluate(len(loader.dataset)) for evaluator in evaluators]


def blind(cfg: Config, *, seed: int = 0) -> dict[str, float]:
    """Scores of an answer that looks at no image: one of the names asked for, drawn at random, covers all of it.

    With one name this is "everything is foreground". Background everywhere, the other such answer, scores 0.
    """
    loader = Runner.build_dataloader(copy.deepcopy(cfg.val_dataloader))
    evaluator = Evaluator(copy.deepcopy(cfg.val_evaluator))
    rng = np.random.default_rng(seed)
    for data in loader:
        for sample in data['data_samples']:
            chosen = int(rng.integers(len(sample.class_ids))) + 1
            sample.pred_sem_seg = PixelData(data=torch.full_like(sample.gt_sem_seg.data, chosen))
        evaluator.process(data['data_samples'], data)
    return evaluator.evaluate(len(loader.dataset))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, or the one value, or a dash for none."""
    if len(values) < 2:
        return f'{values[0]:.1f}' if values else '-'
    return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest entry; the first two to the left."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return '\n'.join('  '.join(f'{value:<{width}}' if column < 2 else f'{value:>{width}}'
                               for column, (value, width) in enumerate(zip(row, widths))).rstrip()
                     for row in (header, *rows))


def data_below(node: object, folder: Path) -> None:
    """Point every feature cache in a config at a folder, in place."""
    if isinstance(node, dict):
        if str(node.get('type', '')).endswith('CachedTower'):
            node['folder'] = str(folder)
        for value in node.values():
            data_below(value, folder)
