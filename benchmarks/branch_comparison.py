"""What benchmarks of open-vocabulary models share: the same masks and void scores, named by different branches."""
from __future__ import annotations

import copy
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import Tensor

from frozenmm.compat.files import write_whole
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.fc_clip.ensemble import with_void
from frozenmm.segmentation.fc_clip.results import store
from frozenmm.segmentation.fc_clip.segmentor import FCCLIP
from frozenmm.segmentation.fc_clip.trunk import one_image

ROOT = Path(__file__).resolve().parents[1]
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(embeddings, logits of the trained branch, embeddings of the frozen branch, validity) -> log probabilities."""


def branches(model: FCCLIP, *, untrained: int = 0, exchanged: int = 0, seed: int = 0) -> dict[str, Rule]:
    """Ways to name masks; void is decided by the trained branch in all of them.

    Args:
        model: trained.
        untrained: number of rules whose in-vocabulary classifier has fresh random weights, without frozen branch.
        exchanged: number of rules that exchange the names of `both` at random, which is chance.
        seed: of these.

    Returns:
        `both` (the model as configured), `trained` (in-vocabulary branch alone), `frozen` (out-of-vocabulary branch
        alone), `untrained 0`, ..., `exchanged 0`, ...
    """
    classifier = model.classifier

    def both(embeddings: Tensor, logits: Tensor, frozen: Tensor, valid: Tensor) -> Tensor:
        return classifier.log_probs(logits, frozen, valid)

    def trained(embeddings: Tensor, logits: Tensor, frozen: Tensor, valid: Tensor) -> Tensor:
        return classifier.log_probs(logits, None)

    def only_frozen(embeddings: Tensor, logits: Tensor, frozen: Tensor, valid: Tensor) -> Tensor:
        return with_void(classifier.frozen_logits(frozen), logits, sharpness=classifier.sharpness)

    rules: dict[str, Rule] = {'both': both, 'trained': trained, 'frozen': only_frozen}
    for number in range(untrained):
        rules[f'untrained {number}'] = _untrained(classifier, seed + number)
    for number in range(exchanged):
        rules[f'exchanged {number}'] = _exchanged(both, classifier.rows.num_classes, seed + number)
    return rules


def _untrained(classifier: MaskClassifier, seed: int) -> Rule:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = copy.deepcopy(classifier.class_embed)
        for layer in fresh:
            if isinstance(layer, torch.nn.Linear):
                layer.reset_parameters()

    def rule(embeddings: Tensor, logits: Tensor, frozen: Tensor, valid: Tensor) -> Tensor:
        trained, classifier.class_embed = classifier.class_embed, fresh
        try:
            return with_void(classifier(embeddings)[..., :-1], logits, sharpness=classifier.sharpness)
        finally:
            classifier.class_embed = trained

    return rule


def _exchanged(rule: Rule, num_classes: int, seed: int) -> Rule:
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    order = torch.cat([order, torch.tensor([num_classes])])
    return lambda *inputs: rule(*inputs)[..., order]


@torch.no_grad()
def measure(model: FCCLIP, cfg: Config, rules: Mapping[str, Rule]) -> dict[str, dict[str, float]]:
    """Metrics of the config's validation set under every rule, from one forward pass per image."""
    model.eval()
    loader = Runner.build_dataloader(copy.deepcopy(cfg.val_dataloader))
    evaluators = {name: Evaluator(copy.deepcopy(cfg.val_evaluator)) for name in rules}
    for evaluator in evaluators.values():
        evaluator.dataset_meta = loader.dataset.metainfo
    for data in loader:
        batch = model.data_preprocessor(data, False)
        images, samples = batch['inputs'], batch['data_samples']
        proposals, features = model.generate(images, samples, all_layers=False)
        last = proposals[-1]
        logits = model.classifier(last.embeddings)
        frozen, valid = model.trunk.frozen_embeddings(features, last.mask_logits)
        geometries = model.trunk.geometries(images, samples)
        for name, rule in rules.items():
            log_probs = rule(last.embeddings, logits, frozen, valid)
            for index, sample in enumerate(samples):
                store(sample, model.finish(log_probs[index], last.mask_logits[index].float(), geometries[index], sample,
                                           one_image(features, index)), model.classifier.rows.num_classes)
            evaluators[name].process(samples, data)
    return {name: {key: round(value, 4) for key, value in evaluator.evaluate(len(loader.dataset)).items()
                   if isinstance(value, float) and math.isfinite(value)} for name, evaluator in evaluators.items()}


def without_validation(cfg: Config) -> Config:
    """A copy of a config whose training does not validate, because `measure` does so afterwards."""
    cfg = copy.deepcopy(cfg)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


def machine() -> dict[str, object]:
    """Where and with what a result was measured."""
    revision = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True, check=False)
    info = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    models = [line.split(':')[1].strip() for line in info.splitlines() if line.startswith('model name')]
    return dict(cpu=models[0] if models else platform.processor(), cores=os.cpu_count(), torch=torch.__version__,
                python=platform.python_version(), commit=revision.stdout.strip())


def write_json(path: Path, content: object) -> None:
    """Write a result file whole."""
    write_whole(path, (json.dumps(content, indent=1) + '\n').encode())
