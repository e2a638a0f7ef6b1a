"""Errors by origin: `UserError` for what a user gave, every other exception for a fault of this package.

A `UserError` is one sentence that names file, key or value, what was expected, what came and what to do. The command
line prints that sentence and ends with exit code 2; any other exception keeps its traceback (`engine.command_line`).
Raise it at the doors only: arguments, configs, files of strangers, devices, downloads. Shapes and values that only our
own code passes on stay plain `ValueError`s.
"""
from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """What the user gave cannot be used; the text says what was given, what is allowed and what to do."""

    def __str__(self) -> str:
        """The sentence itself, also where a second base would show it in quotes (`KeyError`)."""
        return ' '.join(str(argument) for argument in self.args)


class MissingFile(UserError, FileNotFoundError):
    """A file or folder that the user named is not there."""


class UnreadableFile(UserError, OSError):
    """A file is there, but its content is damaged or of another kind."""


class UnknownName(UserError, KeyError):
    """A name that no table knows; the text lists the nearest ones."""


class WrongKind(UserError, TypeError):
    """A value of another type than the argument or key takes."""


class MissingPackage(UserError, ImportError):
    """An optional package is not installed; the text gives the command that installs it."""


class DeviceError(UserError, RuntimeError):
    """A device that this machine or this build of torch does not have."""


_OF_PYTHON = re.compile(r'values to unpack|invalid literal for|could not convert|not in list|is not supported between'
                        r'|expected struct')
"""Sentences of `ValueError`s and others that speak of code."""


@contextmanager
def reading(source: str | Path, kind: str, remedy: str = '') -> Iterator[None]:
    """Around code that reads foreign bytes: whatever goes wrong becomes a `UserError` that names the source.

    Args:
        source: file or address.
        kind: what it should be, with its article: `'a COCO annotation file'`.
        remedy: what the user can do, as a clause: `'export it again'`.

    Raises:
        MissingFile: the file is not there.
        UnreadableFile: anything else, unless it is a `UserError` already.

    >>> with reading('words.json', 'a vocabulary', 'see ...'):
    ...     {}['classes']
    Traceback (most recent call last):
    frozenmm.errors.UnreadableFile: words.json cannot be read as a vocabulary: the key 'classes' is missing; see ...
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise MissingFile(_joined(f'there is no {Path(error.filename or source)}, which should be {kind}',
                                  remedy)) from error
    except Exception as error:
        raise UnreadableFile(_joined(f'{source} cannot be read as {kind}: {_reason(error)}', remedy)) from error


def _reason(error: Exception) -> str:
    """What went wrong, without the interpreter's own sentence where it speaks of our code and not of the file."""
    if isinstance(error, KeyError) and error.args:
        return f'the key {error.args[0]!r} is missing'
    if isinstance(error, UnicodeDecodeError):
        return f'it is no text in {error.encoding} (byte {error.start})'
    if 'allow_pickle' in str(error):
        return 'it holds Python objects, and opening those could run code of its author'
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
        return error.strerror or type(error).__name__
    if isinstance(error, TypeError | AttributeError | IndexError | AssertionError | RecursionError | OverflowError
                  | struct.error) or _OF_PYTHON.search(str(error)):
        return 'its content has another form than expected'
    return ' '.join(str(error).split()) or f'its content is damaged ({type(error).__name__})'


def _joined(sentence: str, remedy: str) -> str:
    return f'{sentence}; {remedy}' if remedy else sentence
