"""What the demo takes from strangers: pictures of a size, words of a length; all else is answered in a sentence."""
from __future__ import annotations

import warnings
from pathlib import Path

from frozenmm.apis.vocabulary_text import typed_vocabulary
from frozenmm.compat import require
from frozenmm.compat.image_files import open_picture, read_image_file
from frozenmm.compat.image_sources import NamedImage
from frozenmm.foundation.vocabulary import Vocabulary

MAX_BYTES = 20_000_000
MAX_PIXELS = 24_000_000
MAX_CLASSES = 100
MAX_LETTERS = 2000


class Refused(ValueError):
    """Something that the demo does not take; the text is for the page."""


def picture_of(path: str | None) -> NamedImage:
    """The picture that somebody has uploaded, always called `picture`, whatever their file is called.

    Raises:
        Refused: none, too large, or no picture.
    """
    if not path:
        raise Refused('Choose a picture first.')
    file = Path(path)
    if file.stat().st_size > MAX_BYTES:
        raise Refused(f'The file has {file.stat().st_size / 1e6:.0f} MB; at most {MAX_BYTES // 1_000_000} MB are '
                      'taken.')
    pil = require('PIL.Image', 'reading images')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', pil.DecompressionBombWarning)
            with open_picture(file) as opened:  # reads the header only
                width, height = opened.size
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError):
        raise Refused('This file is no picture that can be read. Use JPEG, PNG or WebP.') from None
    if width * height > MAX_PIXELS:
        raise Refused(f'The picture has {width}x{height} pixels; at most {MAX_PIXELS // 1_000_000} million are taken.')
    try:
        return NamedImage('picture', read_image_file(file))
    except ValueError:
        raise Refused('This picture is damaged. Save it again, or use another one.') from None


def words_of(text: str | None) -> Vocabulary:
    """The classes that somebody has typed: commas or lines between classes, `|` between synonyms. Never a file.

    Raises:
        Refused: nothing typed, too much, or a class that is empty or there twice.
    """
    text = (text or '').strip()
    if not text.strip(' ,|\n'):
        raise Refused('Type at least one word, for instance: cat, red mug|mug, keyboard')
    if len(text) > MAX_LETTERS:
        raise Refused(f'{len(text)} letters are too many; at most {MAX_LETTERS} are taken.')
    try:
        vocabulary = typed_vocabulary(text.replace('\n', ','))
    except ValueError as error:
        raise Refused(f'These words cannot be used: {error}') from None
    if len(vocabulary) > MAX_CLASSES:
        raise Refused(f'{len(vocabulary)} classes are too many; at most {MAX_CLASSES} are taken.')
    return vocabulary
