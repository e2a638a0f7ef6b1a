"""A stand-in for `mmcv._ext`, so that mmdet and mmseg work on mmcv-lite.

`mmcv.ops` asks the compiled module for its functions when it is imported; mmcv-lite has the Python files but no
compiled module. The stand-in answers every name: with an operator of `frozenmm.ops` where there is one, else with a
function that raises when it is called. A real `mmcv._ext` is never replaced.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from mmengine.logging import print_log

from frozenmm.deprecation import moved_names
from frozenmm.errors import MissingPackage
from frozenmm.version import document

NAME = 'mmcv._ext'
Operators = Callable[[], Mapping[str, Callable]]
"""Gives operators by mmcv's name; called when the first is looked up, so that importing frozenmm stays cheap."""

_MOVED = {'roi_align_forward': 'regions', 'roi_align_backward': 'regions', 'nms': 'boxes',
          'sigmoid_focal_loss_forward': 'focal_loss', 'sigmoid_focal_loss_backward': 'focal_loss',
          'get_compiler_version': 'mmcv_names', 'get_compiling_cuda_version': 'mmcv_names'}
__getattr__ = moved_names(__name__, removed_in='0.3', **{k: f'frozenmm.ops.{v}.{k}' for k, v in _MOVED.items()})


class MissingOperator(MissingPackage, NotImplementedError):
    """An operator that only a compiled mmcv has."""


class StandIn(ModuleType):
    """The module object: operators that are served, every other name a function that raises when called.

    Args:
        name: of the module.
        operators: gives those that are served.
    """

    def __init__(self, name: str, operators: Operators) -> None:
        super().__init__(name)
        self._operators = operators

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('_'):
            raise AttributeError(name)
        served = self._operators().get(name)
        if served is not None:
            return served

        def missing(*args: object, **kwargs: object) -> None:
            raise MissingOperator(
                f'the operator {name!r} exists only in compiled mmcv, and mmcv-lite is installed. '
                'Models that need it (rotated NMS, CARAFE, border align, ...) need a build of mmcv 2.1.0 '
                f'with operators; {document("setup")} says how.')

        missing.__name__ = name
        return missing


def compiled_extension() -> Path | None:
    """The file of a real `mmcv._ext`, or None; found without importing mmcv."""
    spec = find_spec('mmcv')
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder, f'_ext{suffix}')
            if path.exists():
                return path
    return None


def install(operators: Operators) -> bool:
    """Put the stand-in into `sys.modules` if mmcv is there without its compiled module; True when it did so."""
    if NAME in sys.modules or find_spec('mmcv') is None or compiled_extension() is not None:
        return False
    module = StandIn(NAME, operators)
    # mmcv and mmengine look the module up with pkgutil and importlib, which ask for a spec
    module.__spec__ = ModuleSpec(NAME, loader=None)
    sys.modules[NAME] = module
    print_log('mmcv has no compiled operators: frozenmm.ops stands in for `mmcv._ext`', logger='current', level=10)
    return True
