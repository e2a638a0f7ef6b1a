"""What decides a tower's features apart from the image: its weights and options, as plain data that can be compared."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path

from frozenmm.compat.files import locked, write_whole
from frozenmm.errors import UnreadableFile, UserError, WrongKind, reading
from frozenmm.foundation.image_tower import ImageTower

LAYOUT = 1
"""Version of the files; another one is refused."""
_RENAMED = {'legacy_border': 'compat'}
_WITHOUT_INFLUENCE = {'training', 'gradient', 'compile_network'}


def recipe_of(tower: ImageTower, store: str = 'fp32') -> dict[str, object]:
    """Everything that decides the features of an image.

    Args:
        tower: the tower.
        store: type of the stored numbers, `'fp32'`, `'bf16'`, `'fp16'` or `'int8'`.

    Returns:
        Plain data: class, network, fingerprint of the weights, precision and every option that the tower keeps; below
        `inner`, the same of a tower that it stands around.

    Raises:
        WrongKind: the tower keeps an option that is no plain data.
    """
    return {'layout': LAYOUT, 'store': store, **_options(tower)}


def _options(tower: ImageTower) -> dict[str, object]:
    options = {key: _plain(value, f'{type(tower).__name__}.{key}') for key, value in vars(tower).items()
               if not key.startswith('_') and key not in _WITHOUT_INFLUENCE}
    return {'tower': type(tower).__name__, 'network': tower.name, 'fingerprint': tower.fingerprint,
            'precision': tower.precision, **options}


def _plain(value: object, place: str) -> object:
    if isinstance(value, ImageTower):
        return _options(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f'{place}.{key}') for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item, place) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise WrongKind(f'{place} is a {type(value).__name__}; what decides features must be plain data (numbers, text, '
                    'lists), so that a feature cache can tell whether it fits. Start its name with _ if it has no '
                    'influence')


def differences(found: Mapping[str, object], wanted: Mapping[str, object], place: str = '') -> list[str]:
    """Lines that name every entry in which two recipes differ."""
    lines = []
    for key in [*wanted, *(key for key in found if key not in wanted)]:
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            lines += differences(one, other, f'{place}{key}.')
        elif one != other:
            lines.append(f'{place}{key}: {one!r} in the cache, {other!r} in the config')
    return lines


def claim_folder(folder: Path, recipe: Mapping[str, object]) -> None:
    """Bind a folder to a recipe, or check the recipe that it is bound to.

    Raises:
        UserError: the folder belongs to another recipe; the text names every difference. Or its record is unreadable.
        UnreadableFile: a file stands at this path.
    """
    path = folder / 'recipe.json'
    if folder.exists() and not folder.is_dir():
        raise UnreadableFile(f'the feature cache {folder.absolute()} is a file; give a folder')
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / '.recipe.lock', busy=f'another process fills the feature cache {folder}; waiting for it'):
            if not path.exists():
                write_whole(path, json.dumps(recipe, indent=1), durable=True)
    with reading(path.absolute(), 'the recipe of a feature cache', 'delete the folder and fill the cache again'):
        found = _with_new_names(dict(json.loads(path.read_text())))
    lines = differences(found, recipe)
    if lines:
        raise UserError(f'the feature cache {folder.absolute()} does not fit this config:\n  ' + '\n  '.join(lines)
                        + '\nGive another folder, or change the config back')


def _with_new_names(recipe: Mapping[str, object]) -> dict[str, object]:
    """A stored recipe under the present names of options, so that caches of older releases stay usable (until 0.3)."""
    return {_RENAMED.get(key, key): _with_new_names(value) if isinstance(value, Mapping) else value
            for key, value in recipe.items()}
