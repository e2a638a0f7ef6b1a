"""What a model may name: classes with synonyms, things and stuff, in the order of their label index."""
from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Union

import torch
from torch import Tensor

from frozenmm.errors import UnknownName, UserError, WrongKind
from frozenmm.foundation.lookup import lookup, nearest

MAX_WORD_LENGTH = 200
"""Characters; a longer word is a sentence, or a file whose line breaks got lost."""
_FOLDER = Path(__file__).parent / 'vocabularies'


@dataclass(frozen=True)
class VocabularyClass:
    """One class.

    Attributes:
        name: what it is called in results.
        synonyms: other words for it; the class scores as its best word.
        id: the data set's category id; the label index if there is none.
        isthing: countable object (True), amorphous stuff (False), or not stated (None).
        color: RGB, 0..255, for drawing.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    id: int | None = None
    isthing: bool | None = None
    color: tuple[int, int, int] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Name and synonyms."""
        return (self.name, *self.synonyms)


def same_word(word: str) -> str:
    """The form in which two ways of writing a word are equal: composed, without case and signs that nobody sees.

    >>> same_word('Coffee  Cup') == same_word('coffee cup')
    True
    """
    composed = unicodedata.normalize('NFC', word)
    seen = ''.join(letter for letter in composed if unicodedata.category(letter) != 'Cf')
    return ' '.join(seen.casefold().split())


VocabularySource = Union['Vocabulary', str, Path, Sequence, Mapping]
"""Whatever `Vocabulary.read` understands."""


@dataclass(frozen=True)
class Vocabulary:
    """K classes with S words (names and synonyms) in all, checked when made.

    A word may belong to several classes, or stand twice in one, as in several official lists.

    Args:
        classes: in the order of the label index.
        name: for messages and file names.
        allow_duplicates: accept two classes with the same words, which no score can tell apart.
        places: where each class stands in its source (`'line 3'`), for errors.

    Raises:
        UserError: no class, an empty or too long word, two classes with the same words, an id used twice.
    """

    classes: tuple[VocabularyClass, ...]
    name: str = 'vocabulary'
    allow_duplicates: bool = False
    places: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.classes:
            raise UserError(f'{self.name} has no classes; a vocabulary needs at least one')
        places = self.places or tuple(f'class {index}' for index in range(len(self.classes)))
        ids = tuple(index if entry.id is None else entry.id for index, entry in enumerate(self.classes))
        by_words: dict[tuple[str, ...], int] = {}
        by_id: dict[int, int] = {}
        for index, entry in enumerate(self.classes):
            self._check_words(entry, places[index])
            first = by_words.setdefault(tuple(map(same_word, entry.words)), index)
            if first != index and not self.allow_duplicates:
                raise UserError(f'{self.name}: {places[index]} {entry.name!r} has the same words as {places[first]}; '
                                 'remove one, or pass allow_duplicates=True')
            first = by_id.setdefault(ids[index], index)
            if first != index:
                raise UserError(f'{self.name}: {places[index]} {entry.name!r} has the id {ids[index]}, which '
                                 f'{places[first]} {self.classes[first].name!r} has already; ids must differ')
        object.__setattr__(self, 'classes', tuple(
            replace(entry, id=number) for entry, number in zip(self.classes, ids)))

    def _check_words(self, entry: VocabularyClass, place: str) -> None:
        for position, word in enumerate(entry.words):
            what = 'name' if position == 0 else f'synonym {position}'
            if not isinstance(word, str):
                raise WrongKind(f'{self.name}: {place} has the {what} {word!r}; words must be text')
            if not word.strip():
                raise UserError(f'{self.name}: {place} ({", ".join(map(repr, entry.words))}) has an empty {what}; '
                                 'write the word or remove the comma')
            if len(word) > MAX_WORD_LENGTH:
                raise UserError(f'{self.name}: {place} has a {what} of {len(word)} characters ({word[:40]!r}...), at '
                                 f'most {MAX_WORD_LENGTH} are allowed; is it a whole file in one line?')

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[VocabularyClass]:
        return iter(self.classes)

    def __getitem__(self, index: int) -> VocabularyClass:
        return self.classes[index]

    @property
    def names(self) -> list[str]:
        """The K names."""
        return [entry.name for entry in self.classes]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All S words, class by class."""
        return tuple(word for entry in self.classes for word in entry.words)

    @property
    def counts(self) -> list[int]:
        """The number of words of each class; sums to S."""
        return [len(entry.words) for entry in self.classes]

    @cached_property
    def class_of_word(self) -> Tensor:
        """(S,) int64, the class index of every word."""
        return torch.repeat_interleave(torch.arange(len(self)), torch.tensor(self.counts))

    @cached_property
    def word_table(self) -> Tensor:
        """(K, M) int64, the word indices of every class, the first one repeated up to the largest class's M."""
        ends = torch.tensor(self.counts).cumsum(0).tolist()
        rows = [list(range(end - count, end)) for end, count in zip(ends, self.counts)]
        return torch.tensor([row + row[:1] * (max(self.counts) - len(row)) for row in rows])

    @property
    def ids(self) -> list[int]:
        """The K category ids of the data set."""
        return [index if entry.id is None else entry.id for index, entry in enumerate(self.classes)]

    @property
    def thing_mask(self) -> Tensor:
        """(K,) bool, which classes are things.

        Raises:
            UserError: a class does not say; the text names it.
        """
        for index, entry in enumerate(self.classes):
            if entry.isthing is None:
                raise UserError(f'{self.name} does not say whether class {index} {entry.name!r} is a thing or stuff; '
                                 'give every class "isthing", or name the thing classes: `with_things([...])`')
        return torch.tensor([bool(entry.isthing) for entry in self.classes])

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that identify the words and the order of the classes; ids and colours do not count."""
        content = json.dumps([entry.words for entry in self.classes])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def index(self, name: str) -> int:
        """The index of the first class with this name.

        Raises:
            UserError: no such class; the nearest names are given.
        """
        if name not in self.names:
            raise UnknownName(f'{self.name} has no class {name!r}; did you mean one of {nearest(name, self.names)}?')
        return self.names.index(name)

    def seen_mask(self, train_vocabulary: Vocabulary) -> Tensor:
        """(K,) bool: a class is seen when any of its words equals, letter for letter, any word of a training class.

        Source: FC-CLIP, official ensemble.
        """
        known = set(train_vocabulary.words)
        return torch.tensor([not known.isdisjoint(entry.words) for entry in self.classes])

    def subset(self, indices: Sequence[int], name: str | None = None) -> Vocabulary:
        """The classes at these indices, in this order, with their ids."""
        return Vocabulary(tuple(self.classes[index] for index in indices), name or f'part of {self.name}',
                          self.allow_duplicates)

    def without(self, *names: str) -> Vocabulary:
        """All classes but those named, e.g. `Vocabulary.named('pascal_voc_21').without('background')`."""
        dropped = {self.index(name) for name in names}
        return self.subset([index for index in range(len(self)) if index not in dropped])

    def with_things(self, things: Sequence[str]) -> Vocabulary:
        """The same classes, those named being things and all others stuff."""
        indices = {self.index(name) for name in things}
        classes = tuple(replace(entry, isthing=index in indices) for index, entry in enumerate(self.classes))
        return Vocabulary(classes, self.name, self.allow_duplicates)

    @classmethod
    def named(cls, name: str) -> Vocabulary:
        """A vocabulary that comes with the package, e.g. `'coco_panoptic_133'`; see `named_vocabularies`.

        Raises:
            UserError: unknown name; the nearest ones are given.
        """
        return cls.read(_FOLDER / f'{lookup(name, named_vocabularies(), "vocabulary")}.json')

    @classmethod
    def read(cls, source: VocabularySource, *, allow_duplicates: bool = False) -> Vocabulary:
        """A vocabulary from whatever a user has.

        Args:
            source: a `Vocabulary`; a packaged name; the path of a `.json` or `.txt` file; a list whose entries are
                comma-separated words, lists of words or dicts; the `METAINFO` of an mmdet or mmseg data set; or part of
                another one, `dict(of=source, only=names)` or `dict(of=source, without=names)`, in its order.
            allow_duplicates: accept two classes with the same words.

        Raises:
            WrongKind: none of these.
            UserError: unusable content; the text names the entry and its place.
            MissingFile: no such file.

        >>> vocabulary = Vocabulary.read(['cat, kitten', 'dog'])
        >>> vocabulary.names, vocabulary.words
        (['cat', 'dog'], ('cat', 'kitten', 'dog'))
        """
        from frozenmm.foundation.vocabulary_readers import read
        return read(source, allow_duplicates)

    def save(self, path: str | Path) -> None:
        """Write our JSON layout, which `read` understands, in one step (never a half-written file)."""
        from frozenmm.foundation.vocabulary_readers import save
        save(self, Path(path))

    def metainfo(self) -> dict[str, object]:
        """The `METAINFO` of mmdet and mmseg: classes, and palette and thing/stuff classes where they are stated."""
        info: dict[str, object] = {'classes': tuple(self.names)}
        if all(entry.color is not None for entry in self.classes):
            info['palette'] = [entry.color for entry in self.classes]
        if all(entry.isthing is not None for entry in self.classes):
            info['thing_classes'] = tuple(entry.name for entry in self.classes if entry.isthing)
            info['stuff_classes'] = tuple(entry.name for entry in self.classes if not entry.isthing)
        return info


def named_vocabularies() -> list[str]:
    """Names of the vocabularies that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob('*.json'))
