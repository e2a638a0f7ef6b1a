"""Mistakes of a config that show only while its parts are built, in words that help: unknown types, keys and files."""
from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmengine.registry import DefaultScope, Registry, build_from_cfg
from mmengine.runner import Runner

from frozenmm import deprecation
from frozenmm import registry as ours
from frozenmm.compat.dependencies import missing_package
from frozenmm.errors import MissingFile, UnknownName, UserError

_MISS = re.compile(r'(\S+) is not in the (\S+)::(.+?) registry')
_UNKNOWN_KEY = re.compile(r'(\w+)(?:\.__\w+__)?\(\) got an unexpected keyword argument \'(\w+)\'')
_MISSING_KEYS = re.compile(r'\(\) missing \d+ required (?:positional|keyword-only) arguments?: (.+)')
_BUILDERS = {build_from_cfg.__code__: 'args', Runner.build_dataloader.__code__: 'dataloader_cfg'}
"""Code that builds a part from its config -> the variable that holds the part's keys."""


@contextmanager
def explained_building() -> Iterator[None]:
    """Around code that builds parts of a config: what the config's author got wrong becomes a `UserError`.

    That is a type that no registry knows, a key that a part does not take or needs and does not get, and a file that is
    not there. Whatever else a constructor raises keeps its traceback, and so does a `TypeError` of code that merely
    runs while parts are built.

    Raises:
        UnknownName: a type or a key.
        MissingPackage: a type is unknown because mmdet or mmseg is not installed.
        UserError: a part without `type`, or without a key that it needs.
        MissingFile: a file that a part reads when it is built.
    """
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        text = str(error.args[0]) if error.args else ''
        found = _MISS.search(text)
        if found is not None:
            ours.refuse_missing_demonstration(found[1])
            _refuse_missing_package(found[1])
            raise UnknownName(explain_miss(found[1], found[3])) from error
        if 'must contain the key "type"' in text:
            part = text.rpartition('but got ')[2].splitlines()[0][:200]
            raise UserError(f'a part of the config has no type: {part}') from error
        raise
    except TypeError as error:
        explained = _explain_keys(error)
        if explained is None:
            raise
        raise explained from error
    except FileNotFoundError as error:
        built = _builds(error)
        if not built:
            raise
        raise MissingFile(f'{_name(built[-1])} cannot be built: there is no file {error.filename or error}; '
                          'set its path in the config (for data sets: data_root)') from error


def _refuse_missing_package(name: str) -> None:
    """Say so where a type is unknown because the package of its scope, or of the config's, is not installed."""
    config = DefaultScope.get_current_instance()
    for scope in (name.partition('.')[0], '' if config is None else config.scope_name):
        if scope in ('mmdet', 'mmseg') and not ours.installed(scope):
            raise missing_package(scope, f'a config that names {name!r}')


def _builds(error: Exception) -> list[FrameType]:
    """The calls that were building a part of a config when the error arose, innermost last."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code in _BUILDERS]


def _name(frame: FrameType) -> str:
    return getattr(frame.f_locals.get('obj_cls'), '__name__', 'a data loader')


def _explain_keys(error: TypeError) -> UserError | None:
    """The error for keys that the config states wrongly; None where the call that failed is not the config's."""
    # a class whose arguments were renamed is called through the decorator that knows their old names
    calls = [frame for frame, _ in traceback.walk_tb(error.__traceback__)
             if frame.f_globals.get('__name__') != deprecation.__name__]
    built, last = _builds(error), calls[-1]
    if not built:
        return None
    unknown = _UNKNOWN_KEY.search(str(error))
    if unknown is not None:
        owner, key = unknown.groups()
        part = built[-1].f_locals[_BUILDERS[built[-1].f_code]]
        if key not in _keys(part):
            return None
        kind = built[-1].f_locals.get('obj_cls')
        if key in part and kind is not None:  # a parent may have refused it
            owner = kind.__name__
        else:  # options that a part hands on, to a class that its own module knows
            kind = last.f_globals.get(owner)
        known = sorted(_parameters(kind))
        near = difflib.get_close_matches(key, known, n=3) or known[:12]
        return UnknownName(f'{owner} has no key {key!r}' + (f' (nearest: {", ".join(near)})' if near else '') +
                           '; correct it in the config')
    missing = _MISSING_KEYS.search(str(error))
    if missing is not None and last is built[-1]:
        return UserError(f'{_name(last)} needs {missing[1]}, which the config does not state')
    return None


def _keys(node: object) -> set[str]:
    """All keys in nested dictionaries and lists."""
    if isinstance(node, Mapping):
        return {str(key) for key in node}.union(*map(_keys, node.values()))
    if isinstance(node, Sequence) and not isinstance(node, str):
        return set().union(*map(_keys, node))
    return set()


def _parameters(kind: object) -> set[str]:
    """Names that a constructor takes, those that it hands on to its parents included."""
    names: set[str] = set()
    parts: list[Any] = list(inspect.getmro(kind)) if inspect.isclass(kind) else [kind]
    for part in parts:
        start = part.__dict__.get('__init__') if inspect.isclass(part) else part
        if not inspect.isfunction(start):
            continue
        parameters = inspect.signature(start).parameters.values()
        names |= {parameter.name for parameter in parameters
                  if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)}
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names - {'self'}


def explain_miss(name: str, kind: str) -> str:
    """What to do about a type that no registry knows.

    Args:
        name: the type as the config writes it, with or without scope.
        kind: the registry's name, e.g. `'model'`.
    """
    scope, _, plain = name.rpartition('.')
    known = {f'{scope_}.{key}': key for scope_, key in _registered(kind)}
    same = sorted(full for full, key in known.items() if key == plain)
    text = f'no {kind} is registered as {name!r}'
    scopes = {full.partition('.')[0] for full in known}
    if scope and scope not in scopes:
        other = f', or take {same[0]!r}' if same else ''
        return (f'{text}: the package {scope!r} has not been imported; add it to the config: '
                f'custom_imports = dict(imports=[{scope!r}]){other}')
    if same:
        return f'{text}, but {same[0]!r} is; write type={same[0]!r}'
    close = difflib.get_close_matches(plain, sorted(set(known.values())), n=3, cutoff=0.6)
    nearest = [full for key in close for full, value in known.items() if value == key][:3]
    advice = f'nearest: {", ".join(nearest)}' if nearest else f'no similar name among {len(known)} registered ones'
    return (f'{text} ({advice}); for a class of your own, add the module that registers it to the config: '
            'custom_imports = dict(imports=[\'your_module\'])')


def _registered(kind: str) -> set[tuple[str, str]]:
    """(scope, name) of everything that the registries of this kind hold, in all imported packages."""
    for registry in vars(ours).values():
        if isinstance(registry, Registry) and registry.name == kind:
            registry.import_from_location()
            root = registry.root
            return set(_walk(root))
    return set()


def _walk(registry: Registry) -> Iterator[tuple[str, str]]:
    registry.import_from_location()
    for name in registry.module_dict:
        yield registry.scope, name
    for child in registry.children.values():
        yield from _walk(child)
