"""Vocabularies from lists, JSON, plain text and METAINFO; every error names the entry and where it stands."""
from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from frozenmm.compat.files import write_whole
from frozenmm.errors import UnknownName, UserError, WrongKind, reading
from frozenmm.foundation.lookup import nearest
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass, VocabularySource, named_vocabularies
from frozenmm.version import document

_ENTRY_KEYS = ('name', 'synonyms', 'id', 'isthing', 'color', 'index')
_CATEGORY_KEYS = ('supercategory', 'keypoints', 'skeleton', 'synset', 'def', 'frequency', 'image_count',
                  'instance_count')
"""What else COCO's and LVIS's categories say of a class."""
_NUMBERED = re.compile(r'\s*(\d{1,9})\s*:(.*)')


def read(source: VocabularySource, allow_duplicates: bool) -> Vocabulary:
    """See `Vocabulary.read`."""
    if isinstance(source, Vocabulary):
        return source
    with reading(source if isinstance(source, str | Path) else 'this', 'a vocabulary', f'see {document("vocabulary")}'):
        if isinstance(source, str | Path):
            return _read_name_or_file(source, allow_duplicates)
        return _read_content(source, 'vocabulary', allow_duplicates)


def _read_content(source: object, name: str, allow_duplicates: bool) -> Vocabulary:
    if isinstance(source, Mapping):
        return _read_mapping(source, name, allow_duplicates)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes | bytearray):
        return _read_list(source, name, allow_duplicates)
    raise WrongKind('a vocabulary is a list of names, the name of a packaged vocabulary, a .json or .txt file, or a '
                    f'METAINFO dict; got {type(source).__name__}')


def _read_name_or_file(source: str | Path, allow_duplicates: bool) -> Vocabulary:
    path = Path(source)
    if path.suffix not in ('.json', '.txt'):
        if isinstance(source, str) and os.sep not in source:
            return Vocabulary.named(source)
        raise UserError(f'{source} is neither a .json nor a .txt file, nor a packaged vocabulary '
                         f'({named_vocabularies()}); a list of class names must be a list')
    text = path.read_text(encoding='utf-8-sig')
    if path.suffix == '.txt':
        return _read_lines(text, path.name, allow_duplicates)
    content = json.loads(text)
    if not isinstance(content, Mapping | list):
        raise UserError(f'{path} must hold a list of classes or an object with "classes", got {type(content).__name__}')
    return _read_content(content, path.name, allow_duplicates)


def _read_lines(text: str, name: str, allow_duplicates: bool) -> Vocabulary:
    """A class a line; lines that begin with `#` are comments, and `0: cat` in every line gives the ids."""
    lines = [(f'line {number}', line) for number, line in enumerate(text.rstrip().splitlines(), 1)
             if not line.lstrip().startswith('#')]
    classes = [_entry(line, name, place, None) for place, line in lines]
    numbered = [_NUMBERED.fullmatch(line) for _, line in lines]
    if all(numbered):
        classes = [replace(_entry(match[2], name, place, None), id=int(match[1]))
                   for (place, _), match in zip(lines, numbered) if match]
    return Vocabulary(tuple(classes), name, allow_duplicates, tuple(place for place, _ in lines))


def _read_list(entries: Sequence, name: str, allow_duplicates: bool) -> Vocabulary:
    places = [f'class {index}' for index in range(len(entries))]
    classes = tuple(_entry(entry, name, place, index) for index, (entry, place) in enumerate(zip(entries, places)))
    return Vocabulary(classes, name, allow_duplicates, tuple(places))


def _read_mapping(content: Mapping, name: str, allow_duplicates: bool) -> Vocabulary:
    """Our JSON layout or a METAINFO, which keep the classes under `classes`; or part of another vocabulary."""
    if 'of' in content:
        return _read_part(content, allow_duplicates)
    if 'classes' not in content and isinstance(content.get('categories'), list):
        return _read_list(content['categories'], name, allow_duplicates)  # a COCO annotation file
    if 'classes' not in content:
        raise UserError(f'{name} has no "classes"; it has {sorted(map(str, content))}')
    entries = content['classes']
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise UserError(f'{name}: "classes" must be a list, got {type(entries).__name__} {entries!r}')
    vocabulary = _read_list(entries, str(content.get('name', name)), allow_duplicates)
    colors = _palette(content.get('palette'), vocabulary)
    things = _things(content, vocabulary)
    classes = []
    for index, entry in enumerate(vocabulary):
        isthing = things.get(entry.words, entry.isthing)
        classes.append(VocabularyClass(entry.name, entry.synonyms, entry.id, isthing, colors.get(index, entry.color)))
    return Vocabulary(tuple(classes), vocabulary.name, allow_duplicates)


def _read_part(content: Mapping, allow_duplicates: bool) -> Vocabulary:
    """`dict(of=vocabulary, only=names)` or `dict(of=vocabulary, without=names)`."""
    chosen = [key for key in ('only', 'without') if key in content]
    if len(chosen) != 1 or set(content) - {'of', 'only', 'without', 'name'}:
        raise UserError('part of a vocabulary is dict(of=vocabulary, only=[names]) or dict(of=vocabulary, '
                         f'without=[names]), with a name if you like; got the keys {sorted(map(str, content))}')
    names = content[chosen[0]]
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise UserError(f'{chosen[0]!r} must be a list of class names, got {names!r}')
    whole = read(content['of'], allow_duplicates)
    named = {whole.index(name) for name in names}
    indices = [index for index in range(len(whole)) if (index in named) == (chosen[0] == 'only')]
    return whole.subset(indices, content.get('name') or f'part of {whole.name}')


def _palette(palette: object, vocabulary: Vocabulary) -> dict[int, tuple[int, int, int]]:
    if palette is None:
        return {}
    if isinstance(palette, str) or not isinstance(palette, Sequence) or len(palette) < len(vocabulary):
        raise UserError(f'{vocabulary.name}: the palette must be a list of at least {len(vocabulary)} RGB colours, '
                         f'one per class; got {palette!r}')
    return {index: _color(color, vocabulary.name, f'palette entry {index}')
            for index, color in enumerate(palette[:len(vocabulary)])}


def _things(content: Mapping, vocabulary: Vocabulary) -> dict[tuple[str, ...], bool]:
    """Words of a class -> thing or not, from `thing_classes` and `stuff_classes`; one of them is enough."""
    stated: dict[tuple[str, ...], bool] = {}
    known = {entry.words for entry in vocabulary}
    for key, isthing in (('thing_classes', True), ('stuff_classes', False)):
        for position, name in enumerate(content.get(key) or ()):
            words = _entry(name, vocabulary.name, f'{key} entry {position}', None).words
            if words not in known:
                raise UnknownName(f'{vocabulary.name}: {key} names {name!r}, which is not among the classes; did you '
                                 f'mean one of {nearest(name, vocabulary.names)}?')
            if stated.setdefault(words, isthing) != isthing:
                raise UserError(f'{vocabulary.name}: {name!r} is among the thing_classes and the stuff_classes')
    given = [key for key in ('thing_classes', 'stuff_classes') if content.get(key) is not None]
    missing = [entry for entry in vocabulary if entry.words not in stated]
    if len(given) == 2 and missing:
        raise UserError(f'{vocabulary.name}: {[entry.name for entry in missing]} are neither among the thing_classes '
                         'nor the stuff_classes')
    if len(given) == 1:
        stated.update((entry.words, given[0] == 'stuff_classes') for entry in missing)
    return stated


def _entry(entry: object, name: str, place: str, index: int | None) -> VocabularyClass:
    """A class from comma-separated words, a list of words, or a dict."""
    if isinstance(entry, VocabularyClass):
        return entry
    if isinstance(entry, str):
        words = [' '.join(word.split()) for word in entry.split(',')]
        return VocabularyClass(words[0], tuple(words[1:]))
    if isinstance(entry, Mapping):
        return _entry_of_mapping(entry, name, place, index)
    if isinstance(entry, Sequence) and not isinstance(entry, (bytes, bytearray)) and entry:
        first, *rest = (_word(word, name, place) for word in entry)
        return VocabularyClass(first, tuple(rest))
    raise UserError(f'{name}: {place} must be a name, a list of words, or an object with "name"; got {entry!r}')


def _entry_of_mapping(entry: Mapping, name: str, place: str, index: int | None) -> VocabularyClass:
    for key in entry:
        if key not in (*_ENTRY_KEYS, *_CATEGORY_KEYS):
            raise UnknownName(f'{name}: {place} has the unknown key {key!r}; did you mean one of '
                             f'{nearest(str(key), _ENTRY_KEYS, 3)}?')
    if 'name' not in entry:
        raise UserError(f'{name}: {place} has no "name": {dict(entry)}')
    synonyms = entry.get('synonyms', ())
    if isinstance(synonyms, str) or not isinstance(synonyms, Sequence):
        raise UserError(f'{name}: the synonyms of {place} {entry["name"]!r} must be a list, got {synonyms!r}')
    number, isthing, color = entry.get('id'), entry.get('isthing'), entry.get('color')
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise UserError(f'{name}: the id of {place} {entry["name"]!r} must be a whole number, got {number!r}')
    if isthing is not None and isthing not in (True, False):
        raise UserError(f'{name}: "isthing" of {place} {entry["name"]!r} must be true or false, got {isthing!r}')
    if index is not None and entry.get('index', index) != index:
        raise UserError(f'{name}: {place} {entry["name"]!r} says index {entry["index"]!r}; classes must be listed in '
                         'the order of their index')
    words = [_word(word, name, place) for word in (entry['name'], *synonyms)]
    if 'synset' in entry:  # LVIS repeats the name among the synonyms
        words = list(dict.fromkeys(words))
    return VocabularyClass(words[0], tuple(words[1:]), number, None if isthing is None else bool(isthing),
                           None if color is None else _color(color, name, place))


def _word(word: object, name: str, place: str) -> str:
    if not isinstance(word, str):
        raise UserError(f'{name}: {place} holds {word!r} where a word should be')
    return ' '.join(word.split())


def _color(color: object, name: str, place: str) -> tuple[int, int, int]:
    channels = [value for value in color if isinstance(value, int | float) and 0 <= value <= 255] if isinstance(
        color, Sequence) else []
    if len(channels) != 3 or len(channels) != len(cast(Sequence, color)):
        raise UserError(f'{name}: {place} must be three numbers in 0..255 (RGB), got {color!r}')
    red, green, blue = (int(value) for value in channels)
    return red, green, blue


def save(vocabulary: Vocabulary, path: Path) -> None:
    """See `Vocabulary.save`."""
    entries = []
    for index, entry in enumerate(vocabulary):
        line: dict[str, object] = {'index': index, 'id': entry.id, 'name': entry.name}
        if entry.synonyms:
            line['synonyms'] = list(entry.synonyms)
        if entry.isthing is not None:
            line['isthing'] = entry.isthing
        if entry.color is not None:
            line['color'] = list(entry.color)
        entries.append('  ' + json.dumps(line, ensure_ascii=False))
    text = f'{{"name": {json.dumps(vocabulary.name)},\n "classes": [\n' + ',\n'.join(entries) + '\n]}\n'
    write_whole(path, text)
