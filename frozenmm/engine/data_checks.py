"""The data sets of a config, looked at before a training or a test: what is wrong ends it, what is left is counted."""
from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from frozenmm.compat.files import write_whole
from frozenmm.datasets.checks.coco_boxes import BoxReading, read_boxes, tidy_boxes
from frozenmm.datasets.checks.findings import Survey
from frozenmm.datasets.checks.samples import QUICK, check_samples, innermost
from frozenmm.datasets.layouts import left_out, origin
from frozenmm.datasets.panoptic_files import read_panoptic_file
from frozenmm.engine.class_words import agree_on_words
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.registry import DATASETS, installed

_INNER = ('dataset', 'datasets', 'source')


def prepare_data(cfg: Config, stages: Sequence[str] = ('train', 'val'), *, collect: bool = False) -> list[Survey]:
    """Compare data sets, model and metrics of a config before they are built, and mend what can be, in place.

    COCO instance files that lack keys, or list classes in another order than the config, are replaced by mended copies
    in the work folder, for data sets and metrics alike.

    Args:
        cfg: the config.
        stages: of `'train'`, `'val'`, `'test'`; those that the config does not run are left out.
        collect: leave errors in the surveys instead of raising the first one.

    Returns:
        One survey for each data set, with counts where it reads a COCO instance file; see `report`.

    Raises:
        MissingFile, UnreadableFile: an annotation file.
        UserError: the first error of a survey; data set and model contradict each other.
    """
    surveys = []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        for stage in stages:
            if cfg.get(f'{stage}_dataloader') is None or cfg.get(f'{stage}_cfg') is None:
                continue
            for dataset in _below(cfg[f'{stage}_dataloader'].get('dataset')):
                surveys.append(Survey(stage))
                try:
                    classes = _prepare(cfg, dataset, surveys[-1])
                    surveys[-1].raise_errors()
                    ann_file = _annotations(dataset)
                    panoptic = ann_file if ann_file and _is(dataset, 'CocoPanoptic') else None
                    agree_on_words(cfg, dataset, panoptic, classes, surveys[-1])
                except UserError as error:
                    if not collect:
                        raise
                    if not surveys[-1].errors:
                        surveys[-1].fail(stage, str(error), '')
    if 'train' in stages:
        _fit_padding(cfg)
        _refuse_class_weights(cfg.get('model'), cfg.get('default_scope', 'mmdet'))
    return surveys


def check_loader(loader: Any, stage: str, *, count: int | None = QUICK, needed: bool = True) -> list[Survey]:
    """Look at the pictures and maps of a built loader's data sets, and say what is left of them.

    Args:
        loader: with `dataset`.
        stage: what the line begins with.
        count: pictures whose pixels are read; None for all.
        needed: whether errors end the run.

    Raises:
        UserError: the first error.
    """
    surveys = []
    for dataset in innermost(loader.dataset):
        survey = Survey(stage)
        check_samples(dataset, survey, count=count)
        surveys.append(survey)
        if needed:
            report([survey])
    return surveys


def report(surveys: Sequence[Survey]) -> None:
    """Log counts, notes and warnings.

    Raises:
        UserError: the first error.
    """
    for survey in surveys:
        for finding in survey.findings:
            if finding.severity != 'error':
                print_log(finding.sentence, logger='current',
                          level=logging.WARNING if finding.severity == 'warning' else logging.INFO)
        if survey.kept or survey.dropped.total():
            print_log(survey.line, logger='current')
        survey.raise_errors()


def _prepare(cfg: Config, dataset: dict[str, Any], survey: Survey) -> list[str]:
    """Mend a COCO instance file; the classes of a data set in label order, as far as the config says them."""
    ann_file = _annotations(dataset)
    stated = (dataset.get('metainfo') or {}).get('classes') or ()
    names = [stated] if isinstance(stated, str) else [str(name) for name in stated]
    if dataset.get('vocabulary') is not None:
        names = Vocabulary.read(dataset['vocabulary'], allow_duplicates=True).names
    elif ann_file is not None and _is(dataset, 'CocoPanoptic'):
        names = [category.name for category in read_panoptic_file(ann_file).categories]
    kind = _class_of(dataset)
    if not names:
        names = [str(name) for name in (getattr(kind, 'METAINFO', {}).get('classes') or ())]
    if ann_file is None or not _reads_boxes(kind):
        return names
    mended = Counter[str]()
    content = read_boxes(ann_file, mended)
    prefix = (dataset.get('data_prefix') or {}).get('img', '')
    stage = survey.name
    wanted = BoxReading(origin(content, ann_file), Path(dataset.get('data_root') or '', prefix), tuple(names),
                        with_masks=_with_masks(cfg, stage, dataset), needed=stage == 'train')
    survey.dropped += left_out(content)
    if tidy_boxes(content, wanted, survey, mended):
        copy = _use_copy(cfg, dataset, ann_file, content)
        if wanted.file == ann_file:
            survey.note(ann_file, f'it is read in a mended copy, {copy}')
    return names


def _use_copy(cfg: Config, dataset: dict[str, Any], original: Path, content: Mapping[str, Any]) -> Path:
    """Write a mended annotation file and let the data set and all metrics of that file read it."""
    text = json.dumps(content)
    folder = Path(cfg.get('work_dir') or 'work_dirs', 'annotations').absolute()
    copy = folder / f'{original.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json'
    if not copy.is_file():
        write_whole(copy, text)
    dataset['ann_file'] = str(copy)
    for key in ('val_evaluator', 'test_evaluator'):
        metrics = cfg.get(key) or ()
        for metric in metrics if isinstance(metrics, list | tuple) else [metrics]:
            if metric.get('ann_file') and Path(metric['ann_file']).absolute() == original.absolute():
                metric['ann_file'] = str(copy)
    return copy


def _fit_padding(cfg: Config) -> None:
    """Keep mmdet's batch padding from semantic maps that the training samples do not have, on which it fails."""
    steps = str((cfg.get('train_dataloader') or {}).get('dataset') or '')
    maps = "'with_seg': True" in steps or 'LoadLabelMap' in steps or 'LoadPanoptic' in steps
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or {}
    for part in (preprocessor, *(preprocessor.get('batch_augments') or ())):
        if part.get('pad_seg') and not maps:
            part['pad_seg'] = False


def _refuse_class_weights(node: Any, scope: str) -> None:
    """Say before the first step that mmseg's loss cannot weigh classes where pixels are without annotation."""
    if isinstance(node, Mapping):
        kind = str(node.get('type'))
        if kind == 'mmseg.CrossEntropyLoss' or (kind == 'CrossEntropyLoss' and scope == 'mmseg'):
            if node.get('class_weight') is not None and not node.get('use_sigmoid') and not node.get('use_mask'):
                raise UserError('mmseg\'s CrossEntropyLoss with class_weight fails at the first pixel without '
                                'annotation (index 255 is out of bounds); take type=\'OhemCrossEntropy\', which weighs '
                                'classes and leaves such pixels out, or no class_weight')
    for value in node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ():
        _refuse_class_weights(value, scope)


def _with_masks(cfg: Config, stage: str, dataset: Mapping[str, Any]) -> bool:
    """Whether a data set must give an outline for every object."""
    steps = str(dataset.get('pipeline') or '')
    metrics = str(cfg.get(f'{stage}_evaluator') or '') if stage != 'train' else ''
    return "'with_mask': True" in steps or 'segm' in metrics


def _annotations(dataset: Mapping[str, Any]) -> Path | None:
    name = dataset.get('ann_file')
    return Path(dataset.get('data_root') or '', name) if name else None


def _below(dataset: Any) -> Iterator[dict[str, Any]]:
    """Configs of data sets below wrappers."""
    if isinstance(dataset, list | tuple):
        for part in dataset:
            yield from _below(part)
    elif isinstance(dataset, Mapping):
        inner = [dataset[key] for key in _INNER if isinstance(dataset.get(key), Mapping | list | tuple)]
        if not inner:
            yield dataset  # type: ignore[misc]  # a ConfigDict
        for part in inner:
            yield from _below(part)


def _class_of(dataset: Mapping[str, Any]) -> Any:
    """The class of a data set, also where its name has no scope."""
    kind = dataset.get('type')
    if not isinstance(kind, str):
        return kind
    scope = DefaultScope.get_current_instance()
    found = None if scope is None or '.' in kind else DATASETS.get(f'{scope.scope_name}.{kind}')
    return found or DATASETS.get(kind)


def _is(dataset: Mapping[str, Any], name: str) -> bool:
    return name in [kind.__name__ for kind in getattr(_class_of(dataset), '__mro__', ())]


def _reads_boxes(kind: Any) -> bool:
    """Whether a class reads COCO instance files as mmdet does, and no other format in that class's place."""
    if not installed('mmdet') or not isinstance(kind, type):
        return False
    from mmdet.datasets import CocoDataset
    return issubclass(kind, CocoDataset) and all(getattr(kind, name) is getattr(CocoDataset, name) for name in (
        'load_data_list', 'COCOAPI', 'parse_data_info'))
