"""A vocabulary as one types it on a command line."""
from __future__ import annotations

import difflib
import re
from pathlib import Path

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary, named_vocabularies


def parse_vocabulary(text: str, stuff: str | None = None) -> Vocabulary:
    """Classes from text.

    Args:
        text: classes separated by commas, synonyms by `|` (`'red mug|mug, keyboard'`); the path of a `.txt` or `.json`
            file; or the name of a packaged vocabulary.
        stuff: classes of it that have no instances, separated by commas; the others have some. None leaves it to the
            vocabulary.

    Raises:
        UserError: an empty or double class, no such file, a single word that is nearly a name or a file, or stuff that
            is no class.

    >>> [entry.isthing for entry in parse_vocabulary('cat, sky', 'sky')]
    [True, False]
    """
    vocabulary = _parsed(text)
    if stuff is None:
        return vocabulary
    without = {vocabulary.index(' '.join(word.split())) for word in stuff.split(',')}
    return vocabulary.with_things([name for index, name in enumerate(vocabulary.names) if index not in without])


def _parsed(text: str) -> Vocabulary:
    if text in named_vocabularies() or Path(text).suffix in ('.txt', '.json'):
        return Vocabulary.read(text)
    plain = text.strip()
    if ',' not in text and (Path(plain).is_file() or re.search(r'\.[A-Za-z]{2,4}$', plain)):
        raise UserError(f'{plain!r} looks like a file; vocabularies are .txt (one class a line) and .json files')
    near = {re.sub(r'\W|_', '', name).lower(): name for name in named_vocabularies()}
    close = difflib.get_close_matches(re.sub(r'\W|_', '', plain).lower(), near, n=1, cutoff=0.9)
    if close and ' ' not in plain:
        raise UserError(f'{plain!r} is no packaged vocabulary; did you mean {near[close[0]]}? As a class of that name, '
                        f'write it with a comma: "{plain},thing"')
    return typed_vocabulary(text)


def typed_vocabulary(text: str) -> Vocabulary:
    """Classes separated by commas, synonyms by `|`; never a file, whatever the text looks like.

    Raises:
        UserError: an empty or double class.

    >>> typed_vocabulary('red mug|mug, keyboard').names
    ['red mug', 'keyboard']
    """
    return Vocabulary.read([[' '.join(word.split()) for word in entry.split('|')] for entry in text.split(',')])
