"""Which classes of a trained set a word of a user's own means: `dog` all breeds of ImageNet, `red mug` its mugs."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from frozenmm.compat import require
from frozenmm.foundation.vocabulary import Vocabulary, same_word

_GROUPS = Path(__file__).with_name('word_groups.json')
NUM_IMAGENET = 1000


@dataclass(frozen=True)
class NamedClasses:
    """K classes by their names, and words for several of them at once.

    Attributes:
        names: the names of every class.
        groups: word -> indices of the classes that it means, whatever they are called.
    """

    names: tuple[tuple[str, ...], ...]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def _named(self) -> dict[str, frozenset[int]]:
        """What is known by a word: its group, else classes of that name and of its kinds."""
        exact: dict[str, set[int]] = {}
        for index, names in enumerate(self.names):
            for name in names:
                exact.setdefault(_singular(name), set()).add(index)
        kinds = {_singular(word): set().union(*(exact.get(_singular(name), set()) for name in (word, *names)))
                 for word, names in _tables()['kinds'].items()}
        found = {**exact, **{word: rows for word, rows in kinds.items() if rows},
                 **{_singular(word): set(rows) for word, rows in self.groups.items()}}
        for words in (*_tables()['same'], *(words.split(',') for words in _tables()['imagenet'])):
            words = [_singular(word) for word in words]
            same: set[int] = set().union(*(found.get(word, set()) for word in words))
            found |= {word: same for word in words if same and word not in found}
        return {word: frozenset(rows) for word, rows in found.items()}

    @cached_property
    def _ends(self) -> dict[str, frozenset[int]]:
        """Classes by the last word of their first name: a trailer truck is a truck."""
        found: dict[str, set[int]] = {}
        for index, names in enumerate(self.names):
            found.setdefault(_singular(names[0]).split(' ')[-1], set()).add(index)
        return {word: frozenset(rows) for word, rows in found.items()}

    def meant(self, words: Sequence[str]) -> tuple[int, ...]:
        """Indices of the classes that any of these words means; none where no class is known by one.

        Where no class has any of the words, classes whose names end with one count; else what the ends of the words
        mean, as of `red mug`.
        """
        whole = [_singular(word) for word in words]
        ends = [' '.join(parts[start:]) for parts in (word.split(' ') for word in whole)
                for start in range(1, len(parts))]
        for known, tried in ((self._named, whole), (self._ends, whole), (self._named, ends)):
            found = [known[word] for word in tried if word in known]
            if found:  # a word of no class ends the search as well: a bird is called kite
                return tuple(sorted(frozenset().union(*found)))
        return ()


def classes_of(vocabulary: Vocabulary) -> NamedClasses:
    """The classes of a vocabulary by their words."""
    return NamedClasses(tuple(entry.words for entry in vocabulary))


@cache
def imagenet_classes() -> NamedClasses:
    """The 1000 ImageNet classes, with everyday words for groups of them.

    Raises:
        MissingPackage: timm, which has the names, is not installed.
    """
    info = require('timm.data', 'the ImageNet class names').ImageNetInfo('imagenet-1k')
    names = tuple(tuple(name.strip() for name in info.index_to_description(index).split(','))
                  for index in range(NUM_IMAGENET))
    groups = {word.strip(): _indices(rows) for words, rows in _tables()['imagenet'].items()
              for word in words.split(',')}
    return NamedClasses(names, groups)


@cache
def _tables() -> dict[str, Any]:
    """`same`: lists of words with one meaning; `kinds`: word -> names below it; `imagenet`: words -> class indices."""
    return json.loads(_GROUPS.read_text(encoding='utf-8'))


def _indices(text: str) -> tuple[int, ...]:
    """(3, 7, 8, 9) of '3,7-9'."""
    ends = [part.partition('-') for part in text.split(',') if part]
    return tuple(index for first, _, last in ends for index in range(int(first), int(last or first) + 1))


def _singular(word: str) -> str:
    """The form in which words are compared: of the plurals in -s the singular.

    >>> _singular('Traffic Lights'), _singular('bus'), _singular('berries')
    ('traffic light', 'bus', 'berry')
    """
    word = same_word(word)
    if word.endswith('ies') and len(word) > 4:
        return word[:-3] + 'y'
    if word.endswith(('ches', 'shes', 'xes', 'sses', 'uses')):
        return word[:-2]
    return word[:-1] if word.endswith('s') and not word.endswith(('ss', 'us', 'is')) else word
