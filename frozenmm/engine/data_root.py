"""Another data set under the same config: a folder in any layout that its kind of model can learn from."""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from frozenmm.datasets.checks.coco_boxes import read_boxes, used_categories
from frozenmm.datasets.layouts import Kind, Split, find_split, pictures
from frozenmm.datasets.panoptic_files import read_panoptic_file
from frozenmm.engine.class_words import as_config
from frozenmm.errors import MissingFile, UserError
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource

VARIABLE = 'FROZENMM_DATA_ROOT'
WISHES = ('words', 'void_labels', 'reduce_zero_label')
"""Options that go with `data_root` and say what label maps mean."""
_LOADERS = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'val'}


@dataclass(frozen=True)
class MapOptions:
    """What a folder of label maps does not say itself.

    Attributes:
        words: the classes in the order of their labels; by default `classes.txt` in the folder. For panoptic
            annotations, the classes to show; by default all of the file.
        void_labels: values that mean nothing.
        reduce_zero_label: label 0 is void, and k is class k - 1.
    """

    words: VocabularySource | None = None
    void_labels: Sequence[int] = ()
    reduce_zero_label: bool = False


def use_data_root(cfg: Config, root: str | Path, options: MapOptions | None = None) -> None:
    """Point a config at another folder, in place: data sets, metrics, words and numbers of classes.

    Detection configs take boxes (COCO layout, Roboflow, Pascal VOC, YOLO), whose classes come from the annotations;
    panoptic configs take panoptic annotations, label maps, or the outlines of things alone (COCO layout, Roboflow);
    semantic ones label maps. See `frozenmm.datasets.layouts.find_split`. A loader
    takes the split that its data set names (`split`, or a `train` in its `ann_file`), else that of the loader's own
    name.

    Args:
        cfg: a config with data loaders of mmdet or mmseg.
        root: the folder.
        options: for label maps.

    Raises:
        MissingFile: the folder is missing, or is in no layout that the config can take; the text names what was looked
            for.
        UnreadableFile: an annotation file that is none.
        UserError: label maps without words, or a config that another folder cannot replace.
    """
    root, options = Path(root).expanduser(), options or MapOptions()
    if not root.is_dir():
        raise MissingFile(f'the data folder {root.resolve()} does not exist (from data_root or {VARIABLE})')
    words: Vocabulary | None = None
    same = False
    for loader, default in _LOADERS.items():
        if cfg.get(loader) is None:
            continue
        dataset = _innermost(cfg[loader].dataset)
        found = find_split(root, _split_of(dataset, default), _kinds(cfg, dataset))
        if words is None:
            words = _words(root, found, options)
            same = found.kind == 'panoptic' and options.words is None and _knows(cfg.model, words)
        if same:
            _move(dataset, root, found)
        else:
            _point(dataset, root, found, words, options)
        evaluator = loader.replace('dataloader', 'evaluator')
        if cfg.get(evaluator) is not None:
            cfg[evaluator] = _metrics(cfg[evaluator], found, None if same else words)
    cfg.data_root = str(root)
    if words is not None and not same:
        _set_classes(cfg.model, words)


def requested_data_root(options: dict[str, object]) -> str | None:
    """The folder that the user asks for: `data_root` among the options, else the environment variable, else None."""
    value = options.get('data_root') or os.environ.get(VARIABLE)
    return None if value is None else str(value)


def requested_map_options(options: dict[str, Any]) -> MapOptions:
    """What goes with `data_root`, taken out of the options."""
    return MapOptions(**{key: options.pop(key) for key in WISHES if key in options})


def _kinds(cfg: Config, dataset: Mapping[str, Any]) -> tuple[Kind, ...]:
    """Annotations that a config can learn from, the best ones first."""
    kind = str(dataset.get('type')).rpartition('.')[2]
    if kind == 'SemanticMaps' or 'LoadLabelMap' in str(dataset.get('pipeline')):
        return ('semantic', )
    if 'Panoptic' in kind:
        return ('panoptic', 'semantic', 'masks')
    if kind.startswith(('Coco', 'GeneratedScenes', 'VOC', 'XML', 'BaseDet')):
        return ('boxes', )
    if cfg.get('default_scope') == 'mmseg':
        return ('semantic', )
    raise UserError(f'data_root cannot replace the data set {dataset.get("type")} of this config, whose samples are no '
                    'pictures with boxes, panoptic or label maps; set its own options')


def _split_of(dataset: Config, default: str) -> str:
    """`'train'` or `'val'`: a validation loader may read training images on purpose."""
    if dataset.get('split') in ('train', 'val'):
        return dataset['split']
    return 'train' if 'train' in Path(dataset.get('ann_file') or '').name else default


def _words(root: Path, found: Split, options: MapOptions) -> Vocabulary:
    """The classes, in label order."""
    if found.kind in ('boxes', 'masks'):
        entries = used_categories(read_boxes(found.annotations))
        things = dict(isthing=True) if found.kind == 'masks' else {}
        return Vocabulary.read([dict(name=entry['name'], **things) for entry in entries], allow_duplicates=True)
    if options.words is not None:
        return Vocabulary.read(options.words)
    if found.kind == 'panoptic':
        return Vocabulary.read([dict(name=entry.name, id=entry.id, isthing=entry.isthing)
                                for entry in read_panoptic_file(found.annotations).categories])
    listed = next((path for path in (root / 'classes.txt', root / 'words.txt') if path.is_file()), None)
    if listed is None:
        raise UserError(f'label maps do not say what their numbers mean, and {root.resolve()} has no classes.txt (one '
                        'class a line, label 0 first); write it, or give words="sky,building,..." beside data_root')
    return Vocabulary.read(listed)


def _knows(model: Mapping[str, Any], words: Vocabulary) -> bool:
    """Whether a model predicts these categories already: then the config's words stay, those held out above all."""
    for node in _nodes(model):
        classifier = node.get('classifier')
        if isinstance(classifier, Mapping) and classifier.get('vocabulary') is not None:
            stated = Vocabulary.read(classifier['vocabulary'])
            return stated.ids == words.ids and len(set(stated.words) & set(words.words)) * 2 >= len(words)
    return False


def _move(dataset: Config, root: Path, found: Split) -> None:
    """Let the config of a panoptic data set read the same classes in another folder."""
    dataset.pop('data_prefix', None)  # an update would merge the two
    dataset.update(type='frozenmm.CocoPanoptic', data_root=str(root), ann_file=_relative(found.annotations, root),
                   data_prefix=dict(img=f'{_relative(found.images, root)}/', seg=f'{_relative(found.maps, root)}/'))


def _point(dataset: Config, root: Path, found: Split, words: Vocabulary, options: MapOptions) -> None:
    """Let the config of a data set read a split."""
    for key in ('split', 'settings', 'vocabulary', 'metainfo', 'img_suffix', 'seg_map_suffix', 'reduce_zero_label',
                'data_prefix'):
        dataset.pop(key, None)
    images = _relative(found.images, root)
    if found.kind in ('boxes', 'masks'):
        dataset.update(type='mmdet.CocoDataset', data_root=str(root), ann_file=_relative(found.annotations, root),
                       data_prefix=dict(img=f'{images}/'), metainfo=dict(classes=tuple(words.names)))
        if found.kind == 'masks':
            dataset.pipeline = [_outlines(step) for step in dataset.get('pipeline') or ()]
    elif found.kind == 'panoptic':
        _move(dataset, root, found)
        dataset.vocabulary = as_config(words)
    else:
        _point_at_label_maps(dataset, root, found, words, options)


def _point_at_label_maps(dataset: Config, root: Path, found: Split, words: Vocabulary, options: MapOptions) -> None:
    for key in ('ann_file', 'filter_cfg'):
        dataset.pop(key, None)
    suffixes = sorted({path.suffix for path in pictures(found.images)}) or ['.jpg']
    folders = dict(img=f'{_relative(found.images, root)}/', seg=f'{_relative(found.annotations, root)}/')
    dataset.update(type='frozenmm.SemanticMaps', data_root=str(root), data_prefix=folders,
                   img_suffix=suffixes[0] if len(suffixes) == 1 else suffixes, seg_suffix=found.map_suffix,
                   vocabulary=as_config(words), void_labels=list(options.void_labels),
                   reduce_zero_label=options.reduce_zero_label)
    dataset.pipeline = [_label_maps(step) for step in dataset.get('pipeline') or ()]


def _relative(path: Path | None, root: Path) -> str:
    return '' if path is None else str(path.relative_to(root) if path.is_relative_to(root) else path)


def _label_maps(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of a pipeline, which reads label maps where it read panoptic ones."""
    return dict(type='frozenmm.LoadLabelMap') if _reads_annotations(step) else dict(step)


def _outlines(step: Mapping[str, Any]) -> dict[str, Any]:
    """The same for outlines of things."""
    reader = dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)
    return reader if _reads_annotations(step) else dict(step)


def _reads_annotations(step: Mapping[str, Any]) -> bool:
    name = str(step.get('type')).rpartition('.')[2]
    return name in ('LoadPanopticMaps', 'LoadPanopticAnnotations', 'LoadAnnotations')


def _metrics(evaluator: Any, found: Split, words: Vocabulary | None) -> Any:
    """The metrics that a kind of annotations can feed, on these files and words; None keeps the config's words."""
    if found.kind == 'masks' and words is not None:
        return dict(type='frozenmm.SplitCocoMetric', ann_file=str(found.annotations), metric='segm',
                    vocabulary=as_config(words), train_vocabulary=as_config(words))
    kept = []
    for metric in evaluator if isinstance(evaluator, list | tuple) else [evaluator]:
        name = str(metric.get('type')).rpartition('.')[2]
        if name == 'SplitCocoMetric' and found.kind != 'boxes':  # they may lie beside the panoptic ones
            outlines = found.annotations.with_name(found.annotations.name.replace('panoptic', 'instances'))
            if words is not None or not outlines.is_file():
                continue
            metric.ann_file = str(outlines)
        elif found.kind == 'semantic' and 'ann_file' in metric:
            continue  # segments, which these annotations do not have
        elif metric.get('ann_file') is not None:
            metric.ann_file = str(found.annotations)
        if metric.get('seg_prefix') is not None:
            metric.seg_prefix = str(found.maps)
        for key in ('vocabulary', 'train_vocabulary'):
            if metric.get(key) is not None and words is not None:
                metric[key] = as_config(words)
        kept.append(metric)
    if not kept:
        raise UserError(f'none of the metrics of this config fits {found.annotations}; add frozenmm.SemanticIoU')
    return kept if isinstance(evaluator, list | tuple) else kept[0]


def _innermost(dataset: Config) -> Config:
    """The data set below wrappers such as RepeatDataset."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def _set_classes(model: Any, words: Vocabulary) -> None:
    """Numbers of classes, and words of a classifier, everywhere in a model."""
    for node in _nodes(model):
        if 'num_classes' in node:
            node['num_classes'] = len(words)
        if isinstance(node.get('classifier'), Mapping):
            for key in ('train_vocabulary', 'vocabulary'):
                if key in node['classifier']:
                    node['classifier'][key] = as_config(words)
            node['classifier'].pop('seen', None)


def _nodes(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        yield node
    for value in node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ():
        yield from _nodes(value)
