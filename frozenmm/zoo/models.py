"""The models of the configs, as `configs/<system>/metafile.yml` describe them (OpenMMLab's format and a few more keys).

A collection says beside OpenMMLab's keys: `Official Weights` (`Where`, `License`, `Commercial`: yes, no or unclear, and
`Convert`, the command), `Code License` of the official code, and `Data Terms`. A result says its `Source`: `published`
(a number of the paper's, not ours) with `From`, or `measured` (by us) with `Evidence`, a file of this repository.
"""
from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from frozenmm.errors import UserError, reading
from frozenmm.foundation.lookup import lookup
from frozenmm.zoo.folders import data_folder

SOURCES = ('published', 'measured')


@dataclass(frozen=True)
class Result:
    """Metrics of a model on a data set.

    Attributes:
        task: e.g. `'Panoptic Segmentation'`.
        dataset: name of the data.
        metrics: value by metric; AP, PQ and mIoU in percent.
        published: the official authors' number, not measured by us.
        origin: where a published number stands, or the file that proves a measured one.
    """

    task: str
    dataset: str
    metrics: dict[str, float]
    published: bool
    origin: str


@dataclass(frozen=True)
class OfficialWeights:
    """Where the authors publish weights, under which terms, and how ours are made from them."""

    where: str
    license: str
    commercial: str
    convert: str


@dataclass(frozen=True)
class Model:
    """A config of the zoo."""

    name: str
    collection: str
    config: str
    results: tuple[Result, ...]
    official: OfficialWeights | None
    code_license: str
    data_terms: str


def read_models(folder: Path | None = None) -> dict[str, Model]:
    """All models that `model-index.yml` leads to, by name.

    Raises:
        MissingFile: a file that the index names is missing.
        UserError: an entry lacks something; the text names the file and the entry.
    """
    folder = folder or data_folder()
    with _reading(folder / 'model-index.yml'):
        paths = [folder / name for name in _read(folder / 'model-index.yml').get('Import', ())]
    models: dict[str, Model] = {}
    for path in paths:
        with _reading(path):
            content = _read(path)
            collections = {entry['Name']: entry for entry in content.get('Collections', ())}
            found = [_model(entry, collections, path) for entry in content.get('Models', ())]
        for model in found:
            if model.name in models:
                raise UserError(f'{path}: there is a second model {model.name!r}')
            models[model.name] = model
    return models


def model(name: str) -> Model:
    """The model of this name.

    Raises:
        UserError: there is none; the text lists the nearest names.
    """
    models = read_models()
    return models[lookup(name.removesuffix('.py'), models, 'model of the zoo')]


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(path, 'a description of models', 'it should have come with frozenmm')


def _read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
    if not isinstance(content, dict):
        raise UserError(f'{path} must hold a mapping, got {type(content).__name__}')
    return content


def _model(entry: Mapping[str, Any], collections: Mapping[str, Mapping[str, Any]], path: Path) -> Model:
    missing = [key for key in ('Name', 'In Collection', 'Config') if key not in entry]
    if missing:
        raise UserError(f'{path}: the entry {entry.get("Name", entry)!r} lacks {missing}')
    collection = collections.get(entry['In Collection'])
    if collection is None:
        raise UserError(f'{path}: {entry["Name"]!r} is in the collection {entry["In Collection"]!r}, which the file '
                         f'does not describe; it has {sorted(collections)}')
    weights = collection.get('Official Weights')
    official = None if weights is None else OfficialWeights(
        *(str(weights.get(key, '')) for key in ('Where', 'License', 'Commercial', 'Convert')))
    return Model(entry['Name'], entry['In Collection'], entry['Config'],
                 tuple(_result(row, entry['Name'], path) for row in entry.get('Results', ())), official,
                 str(collection.get('Code License', '')), str(collection.get('Data Terms', '')))


def _result(row: Mapping[str, Any], name: str, path: Path) -> Result:
    source = row.get('Source')
    if source not in SOURCES:
        raise UserError(f'{path}: a result of {name!r} must say Source: published or measured, got {source!r}')
    origin = row.get('From' if source == 'published' else 'Evidence')
    if not origin:
        raise UserError(f'{path}: a {source} result of {name!r} must say '
                         f'{"From" if source == "published" else "Evidence"}')
    return Result(row['Task'], row['Dataset'], {key: float(value) for key, value in row['Metrics'].items()},
                  source == 'published', str(origin))
