"""What a user may name a model by: a built one, a config, a config file, a config of ours, a checkpoint of the zoo."""
from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import nn

from frozenmm.apis.sharing import config_of_weights
from frozenmm.compat.config_files import read_config_file
from frozenmm.compat.dependencies import missing_package
from frozenmm.engine.explain import explain_miss, explained_building
from frozenmm.engine.run_folder import best_checkpoint
from frozenmm.engine.weights import load_weights
from frozenmm.errors import MissingFile, UnknownName, UserError, WrongKind
from frozenmm.ops.optimize import optimize
from frozenmm.registry import MODELS, installed
from frozenmm.zoo import checkpoint, config_files
from frozenmm.zoo.checkpoints import is_checkpoint

__all__ = ['build_model', 'load_weights', 'model_class', 'open_model', 'read_config', 'read_source',
           'register_modules']


def read_source(model: Config | Mapping | str | Path | None,
                weights: str | Path | None = None) -> tuple[Config, str | Path | None]:
    """Config and weights of a model.

    Args:
        model: a config, its file, the name of a config of ours, or the name of a checkpoint of the zoo; None where the
            weights bring their config, see `config_of_weights`.
        weights: checkpoint file, the folder of a training run, or the name of a checkpoint of the zoo; None takes those
            that the zoo has under `model`.

    Returns:
        The config, and the checkpoint's file; None where none was named.

    Raises:
        MissingFile: no such config or checkpoint; the text lists near names or says how to get it.
        UserError: the config has no model, or the checkpoint belongs to no config.
    """
    if is_checkpoint(weights):
        if model is None:
            model = str(weights)
        weights = checkpoint(str(weights)).resolve()
    own = None if weights is None or not _may_bring_config(model, weights) else config_of_weights(weights)
    if weights is not None and Path(weights).is_dir():
        weights = best_checkpoint(weights)
    if own is not None:
        return own, weights
    if model is None:
        raise UserError(f'{weights} brings no config; name it as model' if weights is not None else
                        'give a model, or weights that bring their config')
    if is_checkpoint(model):
        entry = checkpoint(str(model))
        if entry.config_path is None:
            raise UserError(f'{entry.name} is no model of a config ({entry.what}); give a config, and it as weights')
        return read_config(entry.config_path), entry.resolve() if weights is None else weights
    return read_config(model), weights


def _may_bring_config(model: object, weights: str | Path) -> bool:
    """Whether the config of the weights counts: none is named, or the one that the run's was made from.

    A training may change a config, as its number of classes; what its run wrote down fits its weights.
    """
    if model is None:
        return True
    run = Path(weights) if Path(weights).is_dir() else Path(weights).parent
    return isinstance(model, (str, Path)) and (run / f'{Path(model).stem}.py').is_file() and \
        (run / f'{Path(model).stem}.py').resolve() != Path(model).resolve()


def read_config(model: Config | Mapping | str | Path) -> Config:
    """A config from what a user names it by.

    Raises:
        MissingFile: no such file, nor one of that name among those of frozenmm; the text lists near ones.
        UserError: it has no model, or the file cannot be read as a config.
    """
    if isinstance(model, (str, Path)):
        path = Path(model).expanduser()
        path = path if path.is_file() else _named_config(str(model))
        cfg = read_config_file(path)
    else:
        cfg = model if isinstance(model, Config) else Config(dict(model))
    if 'model' not in cfg:
        raise UserError('the config has no `model`; give a whole config, or build the model yourself')
    return cfg


def _named_config(name: str) -> Path:
    files = config_files()
    stem = name.removesuffix('.py')
    if stem in files:
        return files[stem]
    near = [file for file in files if file.startswith(stem)][:3] \
        or difflib.get_close_matches(stem, list(files), n=3, cutoff=0.3) or sorted(files)
    raise MissingFile(f'{name!r} is neither a config file nor the name of one of ours; nearest: '
                      f'{", ".join(near)}')


def register_modules(cfg: Config) -> str:
    """Fill the registries that a config may name; returns its scope.

    Raises:
        MissingPackage: the scope is that of a package that is not installed.
    """
    scope = cfg.get('default_scope', 'mmdet')
    if cfg.get('default_scope') in ('mmdet', 'mmseg') and not installed(scope):
        raise missing_package(scope, 'the model of this config')
    if installed('mmdet'):
        from mmdet.utils import register_all_modules
        register_all_modules(init_default_scope=False)
    if scope == 'mmseg' and installed('mmseg'):
        from mmseg.utils import register_all_modules as register_mmseg
        register_mmseg(init_default_scope=False)
    return scope


def model_class(cfg: Config) -> type:
    """The class that a config's `model` names.

    Raises:
        UserError: it names none, or one that is not registered; the text says what to write instead.
    """
    if not isinstance(cfg.model, Mapping) or 'type' not in cfg.model:
        raise UserError(f'the config\'s `model` must be a dictionary with a type, got {str(cfg.model)[:200]}')
    kind = cfg.model['type']
    if isinstance(kind, type):
        return kind
    with MODELS.switch_scope_and_registry(register_modules(cfg)) as registry:
        found = registry.get(str(kind))
    if found is None:
        raise UnknownName(explain_miss(str(kind), 'model'))
    return found


def build_model(cfg: Config) -> nn.Module:
    """The model of a config; names without scope are those of the config's scope, as when its Runner builds it.

    Raises:
        UserError: it cannot be built as the config says, see `explained_building`.
    """
    scope = register_modules(cfg)
    with DefaultScope.overwrite_default_scope(scope), explained_building():
        return MODELS.build(cfg.model)


def open_model(cfg: Config, weights: str | Path | None, *, kinds: tuple[type, ...], wanted: str, device: torch.device,
               trusted: bool = False) -> tuple[nn.Module, Mapping[str, Any]]:
    """The model of a config, ready for inference; where trained parts get no weights, that is said.

    Args:
        cfg: a whole config.
        weights: checkpoint of the trained part.
        kinds: classes that it may be of.
        wanted: what those are, for the error.
        device: where to compute.
        trusted: open a checkpoint that holds pickled objects.

    Returns:
        The model in eval mode, and what the checkpoint says about itself.

    Raises:
        WrongKind: the config builds something else.
        UserError: see `build_model` and `load_weights`.
    """
    model = build_model(cfg)
    if not isinstance(model, kinds):
        raise WrongKind(f'the config builds a {type(model).__name__}; {wanted} is needed')
    optimize(model, quiet=True)
    meta: Mapping[str, Any] = {}
    if weights is not None:
        meta = load_weights(model, weights, trusted=trusted)
    elif any(parameter.requires_grad for parameter in model.parameters()):
        print_log(f'no weights are given: the {type(model).__name__} is untrained and its results mean nothing',
                  logger='current')
    return model.to(device).eval(), meta
