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
    def _known(self) -> dict[str, frozenset[int]]:
        """What is known by a word: its group, else classes of that name and of its kinds, else names that end so."""
        exact: dict[str, set[int]] = {}
        ends: dict[str, set[int]] = {}
        for index, names in enumerate(self.names):
            for name in map(_singular, names):
                exact.setdefault(name, set()).add(index)
                ends.setdefault(name.split(' ')[-1], set()).add(index)  # a trailer truck is a truck
        kinds = {_singular(word): set().union(*(exact.get(_singular(name), set()) for name in (word, *names)))
                 for word, names in _tables()['kinds'].items()}
        found = {**ends, **exact, **{word: rows for word, rows in kinds.items() if rows},
                 **{_singular(word): set(rows) for word, rows in self.groups.items()}}
        aliases = [[_singular(word) for word in words] for words in
                   (*_tables()['same'], *(words.split(',') for words in _tables()['imagenet']))]
        for words in aliases:
            same = set().union(*(found[word] for word in words if word in exact or word in kinds and kinds[word]))
            found |= {word: same for word in words if same and word not in self.groups and word not in exact}
        return {word: frozenset(rows) for word, rows in found.items()}

    def meant(self, words: Sequence[str]) -> tuple[int, ...]:
        """Indices of the classes that any of these words means; none where no class is known by it.

        A word of several parts that no class has, as `red mug`, means what its end means.
        """
        found: set[int] = set()
        for word in words:
            parts = _singular(word).split(' ')
            endings = (' '.join(parts[start:]) for start in range(len(parts)))
            found |= next((self._known[ending] for ending in endings if ending in self._known), frozenset())
        return tuple(sorted(found))


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
    ends = [part.partition('-') for part in text.split(',')]
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
