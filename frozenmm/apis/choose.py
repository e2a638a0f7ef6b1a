"""One call for every system: the inferencer that fits a name."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from frozenmm.apis.base import Inferencer
from frozenmm.apis.depth_inferencer import DepthInferencer
from frozenmm.apis.model_sources import read_source, register_modules
from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.engine.explain import explained_registry_misses
from frozenmm.foundation.depth_networks import DepthNetwork
from frozenmm.foundation.vocabulary import VocabularySource
from frozenmm.registry import MODELS
from frozenmm.zoo import checkpoint, default_checkpoint
from frozenmm.zoo.checkpoints import CHECKPOINT_TASKS, is_checkpoint


def inferencer(model: Config | Mapping | str | Path, vocabulary: VocabularySource | None = None, *,
               weights: str | Path | None = None, device: str | torch.device = 'cpu',
               trust_weights: bool = False, task: str | None = None) -> Inferencer:
    """The inferencer of a model, whatever system it belongs to.

    Args:
        model: the name of a checkpoint of the zoo (`python -m frozenmm.zoo list checkpoints`); a task, which takes the
            zoo's first checkpoint for it (`'open-vocabulary'`, `'semantic'`, `'detection'`, `'depth'`); a config, its
            file or its name; or the config of a depth network, `dict(type='frozenmm.HFDepth', ...)`.
        vocabulary: classes to look for, where the model takes words.
        weights: checkpoint, where `model` does not bring its own.
        device: where to compute.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its author.
        task: of an open-vocabulary model, see `OpenVocabularyInferencer`; all by default.

    Raises:
        ValueError: a vocabulary for a model that takes none, or a model without inferencer.
        FileNotFoundError: no such config or checkpoint; the text says how to get it.
    """
    if isinstance(model, str) and model in CHECKPOINT_TASKS and not is_checkpoint(model):
        model = default_checkpoint(model).name
    if is_checkpoint(model) and checkpoint(str(model)).task == 'depth':
        return _without_words(DepthInferencer(_depth_config(str(model)), device=device), vocabulary)
    if isinstance(model, Mapping) and not isinstance(model, Config) and 'type' in model:
        return _without_words(DepthInferencer(model, device=device), vocabulary)
    cfg, weights = read_source(model, weights)
    with MODELS.switch_scope_and_registry(register_modules(cfg)) as registry, explained_registry_misses():
        kind = registry.get(str(cfg.model.type))
    if kind is None:
        raise ValueError(f'no model is registered as {cfg.model.type!r}; add the module that registers it to the '
                         'config: custom_imports = dict(imports=[\'your_module\'])')
    if issubclass(kind, DepthNetwork):
        return _without_words(DepthInferencer(cfg.model, device=device), vocabulary)
    options: dict[str, Any] = dict(weights=weights, device=device, trust_weights=trust_weights)
    return _of_kind(kind, cfg, vocabulary, options, task)


def _of_kind(kind: type, cfg: Config, vocabulary: VocabularySource | None, options: dict[str, Any],
             task: str | None) -> Inferencer:
    """The inferencer for models of a class."""
    from mmdet.models.detectors import BaseDetector

    from frozenmm.segmentation.fc_clip.segmentor import MaskSegmentor
    if issubclass(kind, MaskSegmentor):
        from frozenmm.apis.open_vocabulary_inferencer import OpenVocabularyInferencer
        return OpenVocabularyInferencer(cfg, vocabulary, task=task or 'all', **options)
    if task is not None:
        raise ValueError(f'a {kind.__name__} has one task only; leave task={task!r} out')
    if issubclass(kind, BaseDetector):
        from frozenmm.apis.detection_inferencer import DetectionInferencer
        return _without_words(DetectionInferencer(cfg, **options), vocabulary)
    from frozenmm.segmentation.fusioner.segmentor import FusionerSegmentor
    if issubclass(kind, FusionerSegmentor):
        from frozenmm.apis.fusioner_inferencer import FusionerInferencer
        return FusionerInferencer(cfg, vocabulary, **options)
    raise ValueError(f'there is no inferencer for {kind.__name__}; there are some for FCCLIP and FrozenSeg, '
                     'FusionerSegmentor, detectors of mmdet, and depth networks')


def _without_words(found: Inferencer, vocabulary: VocabularySource | None) -> Inferencer:
    if vocabulary is not None:
        raise ValueError(f'{type(found).__name__} takes no vocabulary: its classes are those that it was trained on; '
                         'open-vocabulary models are listed by `python -m frozenmm.zoo list checkpoints`')
    return found


def _depth_config(name: str) -> dict[str, Any]:
    """The depth network of a checkpoint: the demonstration network, unless the header says another `network`."""
    path = checkpoint(name).resolve()
    stated = load_checkpoint_file(path)['meta'].get('network', {'type': 'frozenmm.LightDepth'})
    if not isinstance(stated, Mapping) or 'type' not in stated:
        raise ValueError(f'the header of {path} must say its network as type and arguments, got {stated!r}')
    return {**stated, 'weights': str(path)}
