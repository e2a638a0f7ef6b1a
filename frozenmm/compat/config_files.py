"""Reading config files: code of a user, which may be wrong in any way."""
from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from frozenmm.errors import MissingFile, UnreadableFile, UserError


def read_config_file(path: str | Path) -> Config:
    """The content of a config file, its `_base_` files worked in and its `custom_imports` imported.

    Raises:
        MissingFile: the file, or one that its `_base_` names, is not there.
        UnreadableFile: it is no Python, or fails when it runs; the text says how.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFile(f'there is no config {path.resolve()}')
    try:
        return Config.fromfile(path)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise MissingFile(f'{path} cannot be read as a config, because a file that it names in _base_ is missing: '
                          f'{error}') from error
    except Exception as error:
        raise UnreadableFile(f'{path} cannot be read as a config: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    """Kind and text of what went wrong in the user's code, in one line."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f'line {error.lineno} is no Python ({error.msg})'
    return f'{type(error).__name__}: {" ".join(str(error).split()) or "no reason given"}'
