"""Class files of the official benchmarks as vocabularies."""
from __future__ import annotations

from pathlib import Path

from frozenmm.errors import reading
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass

SEPARATORS = (', ', '; ')
"""Between the names of a class: SCLIP, NACLIP and RADSeg; ProxyCLIP and Trident."""


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
