"""A trained model to hand on: from the folder of its run to one file, and from either to config and weights."""
from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from frozenmm.apis.image_pipeline import class_names
from frozenmm.compat.checkpoint import load_checkpoint_file, save_checkpoint_file
from frozenmm.compat.config_files import read_config_file
from frozenmm.engine.run_folder import best_checkpoint, run_config
from frozenmm.engine.weights import load_state
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.version import __version__

_KEPT = ('default_scope', 'model')
_OF_DATASET = ('type', 'pipeline', 'metainfo')
_SCOPES = ('frozenmm', 'mmdet', 'mmseg', 'mmengine', 'mmcv', 'mmpretrain')
_NAME = re.compile(rf'(({"|".join(_SCOPES)})\.)?[A-Za-z_][A-Za-z0-9_]*')


def export_run(run: str | Path, out: str | Path, *, checkpoint: str | Path | None = None,
               trusted: bool = False) -> Path:
    """Write the trained part of a run's model into one file, which `inferencer(weights=...)` takes as it is.

    The file holds no optimizer and nothing of the frozen networks but their names and fingerprints. Its header holds
    the model's config, what its test pipeline does with a picture, and the class names. `inference` in it is the text
    of a Python dictionary of plain values, because JSON would make lists of its tuples.

    Args:
        run: the folder that `train` wrote to.
        out: the `.safetensors` file to write.
        checkpoint: of the run; by default the best of its validations, else the last one.
        trusted: open a checkpoint that holds pickled objects. It could run code of its author.

    Returns:
        The file.

    Raises:
        MissingFile: no such run, or it has no config or checkpoint.
        UserError: the checkpoint does not fit the config, the config cannot be written as data, or another suffix.
    """
    from frozenmm.apis.model_sources import build_model
    if not Path(run).is_dir():
        raise MissingFile(f'there is no run folder {Path(run).absolute()}; give the folder that `train` wrote to '
                          '(--work-dir)')
    cfg = read_config_file(run_config(run))
    source = Path(checkpoint) if checkpoint is not None else best_checkpoint(run)
    content = load_checkpoint_file(source, trusted=trusted)
    model = build_model(cfg)
    load_state(model, content.get('state_dict', content), source)
    meta = content.get('meta') or {}
    networks = {module.name: module.fingerprint for module in frozen_modules(model).values()}
    header = dict(inference=_as_text(_inference_config(cfg), run), classes=list(class_names(cfg, meta)),
                  base_models=networks, part='', trained_from=Path(cfg.filename or run).name, checkpoint=source.name,
                  iterations=meta.get('iter'), metrics=_metrics(content), frozenmm=__version__)
    save_checkpoint_file(out, model.state_dict(), header)
    return Path(out)


def _metrics(content: Mapping[str, Any]) -> dict[str, float]:
    """What the run's best validation gave, where the checkpoint says so."""
    best = (content.get('message_hub') or {}).get('runtime_info', {}).get('best_score')
    return {} if best is None else {'best_score': float(best)}


def _inference_config(cfg: Config) -> dict[str, Any]:
    """The part of a config that inference needs."""
    plain = cfg.to_dict()
    loader = plain.get('test_dataloader') or plain.get('val_dataloader') or {}
    dataset = loader.get('dataset', {})
    kept = {key: plain[key] for key in _KEPT if key in plain}
    return {**kept, 'test_dataloader': {'dataset': {key: dataset[key] for key in _OF_DATASET if key in dataset}}}


def _as_text(config: dict[str, Any], run: str | Path) -> str:
    """The text of a config of plain values.

    Raises:
        UserError: it holds others, as classes or functions.
    """
    _check_types(config, f'the config of {run}')
    try:
        if ast.literal_eval(repr(config)) == config:
            return repr(config)
    except (ValueError, SyntaxError):
        pass  # said below
    raise UserError(f'the config of {run} holds more than plain values; write names of registered classes, numbers and '
                    'texts in its model and its test pipeline')


def config_of_weights(weights: str | Path) -> Config | None:
    """The config that comes with weights: that of a run folder, of the run around a checkpoint, or of an export.

    Args:
        weights: a run folder, a checkpoint in one, or a file of `export_run`.

    Returns:
        The config; None for a file that brings none.

    Raises:
        MissingFile: no such file or folder, or a run folder without config.
        UserError: an exported file whose header is not as `export_run` writes it.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        return read_config_file(run_config(path))
    if path.suffix == '.safetensors':
        stated = load_checkpoint_file(path)['meta'].get('inference')
        return None if stated is None else _checked(stated, path)
    in_run = path.is_file() and any(path.parent.glob('*.py')) and any(path.parent.glob('*/vis_data/config.py'))
    return read_config_file(run_config(path.parent)) if in_run else None


def _checked(stated: object, path: Path) -> Config:
    """A config from a stranger's header.

    The registries import what a dotted type names, so only names below the packages of OpenMMLab and ours may stand
    there: another could run any code.
    """
    with reading(path, 'an exported model', 'export the run again'):
        config = ast.literal_eval(str(stated))
    if not isinstance(config, Mapping) or 'model' not in config:
        raise UserError(f'the header of {path} states no config with a model under `inference`; export the run again')
    config = {key: config[key] for key in (*_KEPT, 'test_dataloader') if key in config}
    _check_types(config, f'the header of {path}')
    return Config(config)


def _check_types(node: object, where: str) -> None:
    if isinstance(node, Mapping):
        kind = node.get('type')
        if kind is not None and not (isinstance(kind, str) and _NAME.fullmatch(kind)):
            raise UserError(f'{where} names the type {kind!r}; only names of registered classes of '
                            f'{", ".join(_SCOPES[:3])} may stand there, because others could run any code')
        for key in ('default_scope', '_scope_'):  # the registries import its modules
            if node.get(key, 'mmdet') not in _SCOPES:
                raise UserError(f'{where} names the scope {node[key]!r}; only {", ".join(_SCOPES)} may stand there')
        for value in node.values():
            _check_types(value, where)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _check_types(value, where)
