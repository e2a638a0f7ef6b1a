"""Command-line options over a config: unknown keys are refused, because a misspelt one would change nothing."""
from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from frozenmm.errors import UnknownName, UserError


def parse_options(pairs: Sequence[str]) -> dict[str, object]:
    """`key=value` strings as a dictionary; values are Python literals where they look like one, else text.

    Args:
        pairs: e.g. `['model.num_queries=40', 'data_root=data/coco', '+randomness.seed=1', 'betas=(0.9, 0.99)']`.

    Raises:
        UserError: a string without `=`.

    >>> parse_options(['model.num_queries=40', 'betas=(0.9, 0.99)', 'log_level=ERROR'])
    {'model.num_queries': 40, 'betas': (0.9, 0.99), 'log_level': 'ERROR'}
    """
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition('=')
        if not equals or not key:
            raise UserError(f'--cfg-options takes key=value, got {pair!r}')
        options[key] = _value(text)
    return options


def _value(text: str) -> object:
    words = {'true': True, 'false': False, 'none': None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return [_value(part) for part in text.split(',')] if ',' in text else text


def merge_options(cfg: Config, options: dict[str, object]) -> None:
    """Set options in a config, in place.

    Args:
        cfg: the config.
        options: dotted keys (numbers index lists) to values; a key that the config lacks needs the prefix `+`.

    Raises:
        UserError: a key that the config lacks, with the nearest ones that it has; or a variable of the config file,
            which has done its work when the file was read.
    """
    for key in options:
        if not key.startswith('+'):
            _check_known(cfg, key)
    cfg.merge_from_dict({key.removeprefix('+'): value for key, value in options.items()})


def _runner_keys() -> set[str]:
    """Top-level keys that do something: those of mmengine's Runner, and the imports."""
    from mmengine.runner import Runner  # takes seconds to import
    return {*inspect.signature(Runner.__init__).parameters, 'custom_imports', 'device'} - {'self', 'cfg'}


def _check_known(cfg: Config, key: str) -> None:
    node: Any = cfg
    parts = key.split('.')
    if key in _runner_keys():
        return
    if parts[0] in cfg and parts[0] not in _runner_keys():
        raise UserError(f'--cfg-options: {parts[0]!r} is a variable of the config file, used while the file was read; '
                        f'setting it now has no effect. Set the key that it went into (or +{key}=... if your own code '
                        'reads it)')
    for depth, part in enumerate(parts):
        if isinstance(node, (list, tuple)):
            names = [str(index) for index in range(len(node))]
        elif hasattr(node, 'keys'):
            names = [str(name) for name in node.keys()]
        else:
            names = []
        if part not in names:
            place = '.'.join(parts[:depth]) or 'the config'
            nearest = difflib.get_close_matches(part, names, n=3) or sorted(names)[:12]
            hint = f'nearest: {", ".join(nearest)}' if names else f'{place} is a single value'
            raise UnknownName(f'--cfg-options: {place} has no key {part!r} ({hint}); to add a new key on purpose, '
                              f'write +{key}=...')
        node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]
