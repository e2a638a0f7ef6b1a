"""A look at the data of a config, or in a folder, before anything is trained: counts, findings, a sheet of samples."""
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_files import list_images, read_image_file, sorted_out
from frozenmm.datasets.annotation_pictures import VOID_8BIT, VOID_16BIT, read_picture
from frozenmm.datasets.checks.findings import Survey
from frozenmm.datasets.checks.samples import QUICK, check_samples, innermost
from frozenmm.datasets.layouts import Split, find_split
from frozenmm.engine.browsing import browse, register
from frozenmm.engine.data_checks import prepare_data
from frozenmm.engine.data_root import MapOptions, use_data_root
from frozenmm.engine.explain import explained_building
from frozenmm.engine.launch import load_config
from frozenmm.errors import MissingFile, UserError
from frozenmm.registry import DATASETS

_SHEET = 12
"""Pictures on a sheet."""
_STAGES = ('train', 'val', 'test')


def check_data(target: str | Path, *, full: bool = False, sheet: str | Path | None = None, options: Sequence[str] = ()
               ) -> list[Survey]:
    """Look at all annotations, and the pixels of a sample, of a config's data sets or of a folder.

    Args:
        target: a config file; or a folder in one of the layouts that `use_data_root` knows, or just of pictures.
        full: look at the pixels of all pictures.
        sheet: write a PNG of samples with their targets drawn.
        options: `key=value` strings for the config.

    Returns:
        One survey or two for each data set; `Survey.errors` says whether it can be trained on.

    Raises:
        MissingFile: no such config or folder.
        UserError: a config that cannot be read.
    """
    target, count = Path(target).expanduser(), None if full else QUICK
    if not target.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            return _check_config(load_config(target, options, work_dir=folder), count, sheet)
    configs = _configs_of(target)
    if not configs:
        return [_check_pictures(target)]
    surveys = []
    for number, (cfg, unnamed) in enumerate(configs):
        path = None if sheet is None else Path(sheet)
        if path is not None and number:
            path = path.with_stem(f'{path.stem}_{number + 1}')
        with tempfile.TemporaryDirectory() as folder:
            cfg.work_dir = folder
            surveys += _check_config(cfg, count, path)
        if unnamed:
            surveys[-1].warn(target, 'no classes.txt says what the numbers of its label maps mean, and a training asks '
                             'for that', 'write it: one class a line, label 0 first')
    return surveys


def table(surveys: Sequence[Survey]) -> str:
    """The lines of `check_data` for a terminal: counts of each data set, then its findings."""
    lines = []
    for survey in surveys:
        if survey.kept or survey.dropped.total():
            lines.append(survey.line)
        lines += [f'  {finding.severity:8} {finding.sentence}' for finding in survey.findings]
    errors = sum(len(survey.errors) for survey in surveys)
    return '\n'.join([*lines, f'{errors} errors' if errors != 1 else '1 error'])


def _check_config(cfg: Config, count: int | None, sheet: str | Path | None) -> list[Survey]:
    for stage in _STAGES:  # a data set that no loop uses is looked at all the same
        if cfg.get(f'{stage}_dataloader') is not None and cfg.get(f'{stage}_cfg') is None:
            cfg[f'{stage}_cfg'] = {}
    scope = cfg.get('default_scope', 'mmdet')
    register(scope)
    surveys = prepare_data(cfg, _STAGES, collect=True)
    for stage in _STAGES:
        loader = cfg.get(f'{stage}_dataloader')
        if loader is None or (stage == 'test' and loader == cfg.get('val_dataloader')):
            continue
        survey = Survey(stage)
        surveys.append(survey)
        try:
            with DefaultScope.overwrite_default_scope(scope), explained_building():
                for part in innermost(DATASETS.build(loader.dataset)):
                    check_samples(part, survey, count=count)
        except UserError as error:
            survey.fail(stage, str(error), '')
    if sheet is not None and not any(survey.errors for survey in surveys):
        write_sheet(cfg, Path(sheet))
    return surveys


def _configs_of(root: Path) -> list[tuple[Config, bool]]:
    """Configs without a model for the layouts that a folder has, and whether the words of its classes are made up."""
    configs = []
    for kind, name, steps in (
            ('panoptic', 'frozenmm.CocoPanoptic', [dict(type='frozenmm.LoadPanopticMaps')]),
            ('semantic', 'frozenmm.SemanticMaps', [dict(type='frozenmm.LoadLabelMap')]),
            ('boxes', 'mmdet.CocoDataset', [dict(type='LoadAnnotations', with_bbox=True)])):
        dataset = dict(type=name, pipeline=[dict(type='LoadImageFromFile'), *steps, dict(type='PackDetInputs')])
        content: dict[str, Any] = dict(default_scope='mmdet', model={})
        first = None
        for split in 'train', 'val':
            try:
                found = find_split(root, split, [kind])  # type: ignore[list-item]  # a tuple of literals
            except MissingFile:
                continue
            if found != first:  # a folder that is not split is looked at once
                content[f'{split}_dataloader'] = dict(dataset=dict(dataset))
            first = first or found
        if first is not None:
            words = _unnamed(root, first) if kind == 'semantic' else None
            cfg = Config(content)
            use_data_root(cfg, root, MapOptions(words=words))
            configs.append((cfg, words is not None))
    return configs


def _unnamed(root: Path, found: Split) -> list[str] | None:
    """Names for the numbers of label maps that no file explains."""
    if (root / 'classes.txt').is_file() or (root / 'words.txt').is_file():
        return None
    maps = sorted(found.annotations.rglob(f'*{found.map_suffix}'))[:QUICK]
    values = {value for path in maps for value in np.unique(read_picture(path)).tolist()}
    return [f'label {number}' for number in range(max(values - {VOID_8BIT, VOID_16BIT}, default=0) + 1)]


def _check_pictures(folder: Path) -> Survey:
    survey = Survey('pictures')
    try:
        paths = list_images(folder)
    except MissingFile as error:
        there = sorted(path.name + '/' * path.is_dir() for path in folder.iterdir())
        raise MissingFile(f'{folder} is in no layout of data that is known (docs/data.md shows them), and holds no '
                          f'pictures itself; it has {", ".join(there[:12]) or "nothing"}') from error
    survey.images = len(paths)
    for reason, names in sorted_out(folder)[1].items():
        survey.warn(folder, f'{len(names)} left out: {", ".join(names[:12])}', reason)
    for path in paths:
        try:
            read_image_file(path)
            survey.kept += 1
        except UserError as error:
            survey.dropped['unreadable'] += 1
            survey.fail(path, str(error), '')
    return survey


def write_sheet(cfg: Config, path: Path) -> None:
    """One PNG of training samples with their targets drawn, as the pipeline gives them."""
    cv2 = require('cv2', 'the sheet of samples')
    stage = next(stage for stage in _STAGES if cfg.get(f'{stage}_dataloader') is not None)
    with tempfile.TemporaryDirectory() as folder:
        drawn = [read_image_file(file) for file in browse(cfg, Path(folder), stage=stage, count=_SHEET)]
    side = 320
    tiles = []
    for picture in drawn:
        scale = side / max(picture.shape[:2])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tile = np.full((side, side, 3), 255, np.uint8)
        tile[:small.shape[0], :small.shape[1]] = small
        tiles.append(tile)
    columns = min(4, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start:start + columns], 1) for start in range(0, len(tiles), columns)]
    write_whole(path, cv2.imencode('.png', np.concatenate(rows)[..., ::-1])[1].tobytes())
