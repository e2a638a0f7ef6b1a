"""A vocabulary as one types it on a command line."""
from __future__ import annotations

from pathlib import Path

from frozenmm.foundation.vocabulary import Vocabulary, named_vocabularies


def parse_vocabulary(text: str) -> Vocabulary:
    """Classes from text.

    Args:
        text: classes separated by commas, synonyms by `|` (`'red mug|mug, keyboard'`); the path of a `.txt` or `.json`
            file; or the name of a packaged vocabulary.

    Raises:
        UserError: an empty or double class, or no such file.
    """
    if text in named_vocabularies() or Path(text).suffix in ('.txt', '.json'):
        return Vocabulary.read(text)
    return typed_vocabulary(text)


def typed_vocabulary(text: str) -> Vocabulary:
    """Classes separated by commas, synonyms by `|`; never a file, whatever the text looks like.

    Raises:
        UserError: an empty or double class.

    >>> typed_vocabulary('red mug|mug, keyboard').names
    ['red mug', 'keyboard']
    """
    return Vocabulary.read([[' '.join(word.split()) for word in entry.split('|')] for entry in text.split(',')])
