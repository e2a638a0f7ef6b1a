"""The words of data set, model and metrics of one config, compared before anything is trained."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from frozenmm.datasets.checks.findings import Survey
from frozenmm.datasets.panoptic_files import Category, match_categories, read_panoptic_file
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary

_BESIDE = ('auxiliary', 'rpn', 'proposal')
"""Parts of a model whose number of classes is their own."""


def agree_on_words(cfg: Config, dataset: dict[str, Any], ann_file: Path | None, classes: Sequence[str],
                   survey: Survey) -> None:
    """Let model and data set speak of the same classes, or refuse; in place.

    Where a word list does not say what is a thing and what is stuff, the annotation file's flag counts, and the other
    way round.

    Args:
        cfg: the whole config.
        dataset: the config of one of its data sets.
        ann_file: of panoptic annotations; None without.
        classes: of the data set, in label order; empty where they are not known.
        survey: of the data set, named after its stage; is told what was decided.

    Raises:
        UserError: other classes, another order, another number, or a thing that is stuff elsewhere.
    """
    stage, source = survey.name, f'{survey.name}_dataloader'
    categories = read_panoptic_file(ann_file).categories if ann_file else ()
    for classifier in _find(cfg.get('model') or {}, 'classifier'):
        key = _key(classifier, stage)
        if key is None:
            continue
        words = Vocabulary.read(classifier[key], allow_duplicates=True)
        if categories:
            words = _one_meaning(words, dataset, categories, survey, ann_file)
        shown = dataset.get('vocabulary')
        theirs = (Vocabulary.read(shown, allow_duplicates=True) if shown is not None else
                  Vocabulary.read([dict(name=name) for name in classes], allow_duplicates=True) if classes else None)
        _same_order(words, theirs, f'model.classifier.{key}', source, categories if shown is None else ())
        if words != Vocabulary.read(classifier[key], allow_duplicates=True):
            classifier[key] = as_config(words)
    if classes:
        _same_number(cfg.get('model') or {}, len(classes), source)


def as_config(words: Vocabulary) -> dict[str, Any]:
    """A vocabulary as plain data, which a config file can hold."""
    classes = []
    for entry in words:
        line: dict[str, Any] = dict(name=entry.name, id=entry.id)
        line |= {key: value for key, value in (('synonyms', list(entry.synonyms)), ('isthing', entry.isthing),
                                               ('color', entry.color and list(entry.color))) if value not in ([], None)}
        classes.append(line)
    return dict(name=words.name, classes=classes)


def _one_meaning(words: Vocabulary, dataset: dict[str, Any], categories: Sequence[Category], survey: Survey,
                 ann_file: Path | None) -> Vocabulary:
    """The model's words with thing or stuff for each, as file, data set and they themselves say."""
    shown = Vocabulary.read(dataset['vocabulary'], allow_duplicates=True) if dataset.get('vocabulary') else None
    said = {entry.name: entry.isthing for entry in (*(shown or ()), *words) if entry.isthing is not None}
    filled = [replace(category, isthing=said.get(category.name) if category.isthing is None else category.isthing)
              for category in categories]
    matched = match_categories(shown, filled) if shown is not None else filled
    flags = {category.name: category.isthing is not False for category in matched}
    if shown is not None:
        flags |= {entry.name: category.isthing is not False for entry, category in zip(shown, matched)}
    stated = {category.name: category.isthing for category in categories}
    for entry in words:
        if None not in (entry.isthing, stated.get(entry.name)) and entry.isthing != stated[entry.name]:
            raise UserError(f'{words.name}, which the model uses, says that {entry.name!r} is '
                            f'{"a thing" if entry.isthing else "stuff"}, but {ann_file} says isthing = '
                            f'{int(bool(stated[entry.name]))}; correct one of them')
    new = tuple(replace(entry, isthing=flags.get(entry.name)) if entry.isthing is None else entry for entry in words)
    if new != words.classes:
        words = Vocabulary(new, words.name, allow_duplicates=True)
        groups = {kind: [entry.name for entry in words if entry.isthing is flag]
                  for kind, flag in (('things', True), ('stuff', False))}
        survey.note(ann_file, 'it decides: ' + ', '.join(f'{kind} {names[:12]}' for kind, names in groups.items()))
    if any(category.isthing is None for category in categories):
        dataset['vocabulary'] = as_config(_with_flags(shown, matched))
    return words


def _with_flags(shown: Vocabulary | None, matched: Sequence[Category]) -> Vocabulary:
    """The words of a data set whose file does not say what is a thing."""
    if shown is None:
        return Vocabulary.read([dict(name=category.name, id=category.id, isthing=category.isthing is not False)
                                for category in matched])
    return Vocabulary(tuple(replace(entry, isthing=category.isthing) for entry, category in zip(shown, matched)),
                      shown.name, allow_duplicates=True)


def _same_order(words: Vocabulary, theirs: Vocabulary | None, place: str, source: str, categories: Sequence[Category]
                ) -> None:
    if theirs is None:
        return
    if categories and len(words) == len(categories):  # all of a file, in its order, matched as data sets do it
        theirs = Vocabulary.read([dict(name=entry.name, id=entry.id) for entry in categories], allow_duplicates=True)
        names = [category.name for category in match_categories(words, categories)]
    else:
        names = [next((word for word in entry.words if word in theirs.words), entry.name) for entry in words]
    expected = [next((word for word in entry.words if word in names[place:place + 1]), entry.name)
                for place, entry in enumerate(theirs)]
    if names == expected or (len(words) == len(theirs) and words.ids == theirs.ids != list(range(len(words)))):
        return
    number = next((index for index, (one, other) in enumerate(zip(names, expected)) if one != other),
                  min(len(names), len(expected)))
    first = [entry[number] if number < len(entry) else 'nothing' for entry in (names, expected)]
    what = 'in another order' if sorted(names) == sorted(expected) else 'not the same classes'
    raise UserError(f'{place} has {len(names)} classes and {source} has {len(expected)}, {what}: class {number} is '
                    f'{first[0]!r} for the model and {first[1]!r} in the data; give both the same vocabulary')


def _same_number(model: Mapping[str, Any], count: int, source: str) -> None:
    for path, value in _class_numbers(model, 'model'):
        if value != count:
            raise UserError(f'{path}.num_classes = {value}, but {source} has {count} classes; set it to {count}, or '
                            'give the data set the classes of the model')


def _class_numbers(node: Any, path: str) -> Iterator[tuple[str, int]]:
    """Heads that state `num_classes`."""
    if isinstance(node, Mapping):
        name = path.rpartition('.')[2]
        if isinstance(node.get('num_classes'), int) and 'head' in name and not any(word in path for word in _BESIDE):
            yield path, node['num_classes']
        for key, value in node.items():
            yield from _class_numbers(value, f'{path}.{key}')
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for place, value in enumerate(node):
            yield from _class_numbers(value, f'{path}[{place}]')


def _find(node: Any, key: str) -> Iterator[dict[str, Any]]:
    if isinstance(node, Mapping):
        if isinstance(node.get(key), Mapping):
            yield node[key]
        for value in node.values():
            yield from _find(value, key)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            yield from _find(value, key)


def _key(classifier: Mapping[str, Any], stage: str) -> str | None:
    """Where the words for a stage stand."""
    order = ('train_vocabulary', ) if stage == 'train' else ('vocabulary', 'train_vocabulary')
    return next((key for key in order if classifier.get(key) is not None), None)
