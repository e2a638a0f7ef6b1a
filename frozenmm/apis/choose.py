"""One call for every system: the inferencer that fits a name."""
from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from frozenmm.apis.base import Inferencer
from frozenmm.apis.depth_inferencer import DepthInferencer
from frozenmm.apis.model_sources import model_class, read_source
from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.errors import UserError
from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.vocabulary import VocabularySource
from frozenmm.registry import INFERENCERS
from frozenmm.zoo import checkpoint, default_checkpoint
from frozenmm.zoo.checkpoints import CHECKPOINT_TASKS, is_checkpoint

_REMEDIES = {
    'vocabulary': 'its classes are those that it was trained on; open-vocabulary models are listed by `python -m '
                  'frozenmm.zoo list checkpoints`',
    'task': 'it has one task only',
    'memory': 'open-vocabulary models (FCCLIP, FrozenSeg, WordCellSegmentor) do',
    'weights': 'state them in the config of its network'}


def inferencer(model: Config | Mapping | str | Path | None = None, vocabulary: VocabularySource | None = None, *,
               weights: str | Path | None = None, device: str | torch.device = 'auto',
               trust_weights: bool = False, task: str | None = None,
               memory: ClassMemory | str | Path | None = None) -> Inferencer:
    """The inferencer of a model, whatever system it belongs to.

    Args:
        model: the name of a checkpoint of the zoo (`python -m frozenmm.zoo list checkpoints`); a task, which takes the
            zoo's first checkpoint for it (`'open-vocabulary'`, `'semantic'`, `'detection'`, `'depth'`); a config, its
            file or its name; or the config of a depth network, `dict(type='frozenmm.HFDepth', ...)`. By default the
            config that the weights bring, else `'open-vocabulary'`.
        vocabulary: classes to look for, where the model takes words.
        weights: checkpoint, where `model` does not bring its own; the folder of a training run, whose best checkpoint
            and config count; or a file of `export_run`.
        device: where to compute, see `resolve_device`.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its author.
        task: of an open-vocabulary model, see `OpenVocabularyInferencer`; all by default.
        memory: examples of classes for an open-vocabulary model, see `OpenVocabularyInferencer`.

    Raises:
        UserError: no such config, checkpoint or device; a vocabulary or a task for a model that takes none; a model
            without inferencer.
    """
    if model is None and weights is None:
        model = 'open-vocabulary'
    if isinstance(model, str) and model in CHECKPOINT_TASKS and not is_checkpoint(model):
        model = default_checkpoint(model).name
    if is_checkpoint(model) and checkpoint(str(model)).task == 'depth':
        model = _depth_config(str(model))
    source: Config | Mapping
    chosen: Any  # a class of inferencers; each takes of the options what it needs
    if isinstance(model, Mapping) and not isinstance(model, Config) and 'type' in model:
        source, chosen = model, DepthInferencer
    else:
        source, weights = read_source(model, weights)
        chosen = _required(model_class(source))
    options: dict[str, Any] = dict(device=device, trust_weights=trust_weights)
    taken = inspect.signature(chosen).parameters  # an inferencer need not know all of these
    for name, value in dict(vocabulary=vocabulary, weights=weights, task=task, memory=memory).items():
        if value is not None and name not in taken:
            raise UserError(f'{chosen.__name__} takes no {name}: {_REMEDIES[name]}')
        if value is not None:
            options[name] = value
    return chosen(source, **{name: value for name, value in options.items() if name in taken})


def find_inferencer(kind: type) -> type[Inferencer] | None:
    """The registered inferencer for a class of models: the one that names it, or else its nearest parent."""
    known = _by_model()
    return next((known[base] for base in kind.__mro__ if base in known), None)


def _required(kind: type) -> type[Inferencer]:
    found = find_inferencer(kind)
    if found is None:
        raise UserError(f'there is no inferencer for {kind.__name__}; there are some for '
                        f'{", ".join(sorted(known.__name__ for known in _by_model()))}; register yours in INFERENCERS')
    return found


def _by_model() -> dict[type, type[Inferencer]]:
    INFERENCERS.import_from_location()
    found = [kind for kind in INFERENCERS.module_dict.values()
             if inspect.isclass(kind) and issubclass(kind, Inferencer)]
    return {model: kind for kind in found for model in kind.models()}


def _depth_config(name: str) -> dict[str, Any]:
    """The depth network of a checkpoint: the demonstration network, unless the header says another `network`."""
    path = checkpoint(name).resolve()
    stated = load_checkpoint_file(path)['meta'].get('network', {'type': 'frozenmm.LightDepth'})
    if not isinstance(stated, Mapping) or 'type' not in stated:
        raise UserError(f'the header of {path} must say its network as type and arguments, got {stated!r}')
    return {**stated, 'weights': str(path)}
