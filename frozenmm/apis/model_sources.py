"""What a user may name a model by: a built one, a config, a config file, a config of ours, a checkpoint of the zoo."""
from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.engine.explain import explained_registry_misses
from frozenmm.registry import MODELS, installed
from frozenmm.zoo import checkpoint, config_files
from frozenmm.zoo.checkpoints import is_checkpoint

ModelSource = nn.Module | Config | Mapping | str | Path


def read_source(model: Config | Mapping | str | Path,
                weights: str | Path | None = None) -> tuple[Config, str | Path | None]:
    """Config and weights of a model.

    Args:
        model: a config, its file, the name of a config of ours, or the name of a checkpoint of the zoo.
        weights: checkpoint file, or the name of one of the zoo; None takes those that the zoo has under `model`.

    Returns:
        The config, and the checkpoint's file; None where none was named.

    Raises:
        FileNotFoundError: no such config or checkpoint; the text lists near names or says how to get it.
        ValueError: the config has no model, or the checkpoint belongs to no config.
    """
    if is_checkpoint(weights):
        weights = checkpoint(str(weights)).resolve()
    if is_checkpoint(model):
        entry = checkpoint(str(model))
        if entry.config_path is None:
            raise ValueError(f'{entry.name} is no model of a config ({entry.what}); give a config, and it as weights')
        return read_config(entry.config_path), entry.resolve() if weights is None else weights
    return read_config(model), weights


def read_config(model: Config | Mapping | str | Path) -> Config:
    """A config from what a user names it by.

    Raises:
        FileNotFoundError: no such file, nor one of that name among those of frozenmm; the text lists near ones.
        ValueError: it has no model, or the file cannot be read as a config.
    """
    if isinstance(model, (str, Path)):
        path = Path(model).expanduser()
        path = path if path.is_file() else _named_config(str(model))
        try:
            cfg = Config.fromfile(path)
        except (SyntaxError, OSError, UnicodeDecodeError, NameError) as error:
            raise ValueError(f'{path} cannot be read as a config: {error}') from None
    else:
        cfg = model if isinstance(model, Config) else Config(dict(model))
    if 'model' not in cfg:
        raise ValueError('the config has no `model`; give a whole config, or build the model yourself')
    return cfg


def _named_config(name: str) -> Path:
    files = config_files()
    stem = name.removesuffix('.py')
    if stem in files:
        return files[stem]
    near = [file for file in files if file.startswith(stem)][:3] \
        or difflib.get_close_matches(stem, list(files), n=3, cutoff=0.3) or sorted(files)
    raise FileNotFoundError(f'{name!r} is neither a config file nor the name of one of ours; nearest: '
                            f'{", ".join(near)}')


def register_modules(cfg: Config) -> str:
    """Fill the registries that a config may name; returns its scope."""
    scope = cfg.get('default_scope', 'mmdet')
    if installed('mmdet'):
        from mmdet.utils import register_all_modules
        register_all_modules(init_default_scope=False)
    if scope == 'mmseg' and installed('mmseg'):
        from mmseg.utils import register_all_modules as register_mmseg
        register_mmseg(init_default_scope=False)
    return scope


def build_model(cfg: Config) -> nn.Module:
    """The model of a config; names without scope are those of the config's scope, as when its Runner builds it.

    Raises:
        KeyError: an unregistered type; the text says what to write instead.
    """
    scope = register_modules(cfg)
    with DefaultScope.overwrite_default_scope(scope), explained_registry_misses():
        return MODELS.build(cfg.model)


def load_weights(model: nn.Module, weights: str | Path, *, trusted: bool = False) -> dict:
    """Load the trained part of a model; returns what the checkpoint says about itself.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unsafe or corrupt, or of another model; the text names what differs.
    """
    content = load_checkpoint_file(weights, trusted=trusted)
    state = content.get('state_dict', content)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise ValueError(f'{weights} does not fit the model: {lines[0][:300] if lines else error}; is it the '
                         'checkpoint of another config?') from None
    meta = content.get('meta', {})
    return dict(meta) if isinstance(meta, Mapping) else {}
