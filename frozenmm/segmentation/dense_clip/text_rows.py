"""Classes as text rows, and the class files of the official benchmarks as vocabularies."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from frozenmm.errors import UserError, reading
from frozenmm.foundation.text_embeddings import WordVectors
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass, VocabularySource

SEPARATORS = (', ', '; ')
"""Between the names of a class: SCLIP, NACLIP and RADSeg; ProxyCLIP and Trident."""


class ClassRows(nn.Module):
    """The text side: a row for every name, synonyms apart.

    Args:
        tower: encodes the names.
        templates: a named set or sentences, see `resolve_templates`.
        background: words of a class `background` that is put before the others (in place of one of that name); None
            adds none.
        synonyms: False uses the first name of each class only, the background's words apart.
    """

    def __init__(self, tower: TextTower, *, templates: str | Sequence[str] = 'imagenet80',
                 background: Sequence[str] | None = None, synonyms: bool = True) -> None:
        super().__init__()
        self.tower = tower
        self.words = WordVectors(tower, templates)
        self.background = None if background is None else tuple(background)
        self.synonyms = synonyms
        self._vocabulary: Vocabulary | None = None
        self._rows: Tensor | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes in use, background included.

        Raises:
            UserError: there are none.
        """
        if self._vocabulary is None:
            raise UserError('there is no vocabulary; give `vocabulary=[...]`, or call `set_vocabulary([...])`')
        return self._vocabulary

    def set(self, vocabulary: VocabularySource) -> None:
        """Use other classes; a mapping with `class_file` (and `separator`) reads an official class file."""
        if isinstance(vocabulary, Mapping) and 'class_file' in vocabulary:
            read = read_class_file(str(vocabulary['class_file']), str(vocabulary.get('separator', SEPARATORS[0])))
        else:
            read = Vocabulary.read(vocabulary)
        if not self.synonyms:
            read = Vocabulary(tuple(replace(entry, synonyms=()) for entry in read), read.name, True)
        if self.background is not None:
            first = VocabularyClass('background', self.background, isthing=False)
            others = tuple(replace(entry, id=None) for entry in read if entry.name != 'background')
            read = Vocabulary((first, *others), read.name, True)
        self._vocabulary, self._rows = read, None

    def text(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Unit rows (Q, E) of all names, and the class (Q,) of each."""
        if self._rows is None or self.tower.learns:
            self._rows = self.words.unit(self.vocabulary.words, self.vocabulary.name)
        return self._rows.to(device), self.vocabulary.class_of_word.to(device)


def class_lines(lines: list[str], separator: str = SEPARATORS[0], *, name: str = 'class file') -> Vocabulary:
    """A vocabulary from lines with a class each.

    Args:
        lines: the names of a class, one after the other; blanks at their ends stay.
        separator: between names.
        name: of the vocabulary.
    """
    split = [line.rstrip('\r\n').split(separator) for line in lines]
    return Vocabulary(tuple(VocabularyClass(names[0], tuple(names[1:])) for names in split), name, True)


def read_class_file(path: str | Path, separator: str = SEPARATORS[0]) -> Vocabulary:
    """A vocabulary from a class file (`cls_voc21.txt`, ...), a line for each class.

    Raises:
        UserError: no such file, or no text in it.
    """
    path = Path(path).expanduser()
    with reading(path, 'a class file with one class a line'):
        return class_lines(path.read_text(encoding='utf-8').splitlines(), separator, name=path.stem)
