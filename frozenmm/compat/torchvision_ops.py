"""torchvision's wheel beside a CPU build of torch.

The wheel's compiled library asks for CUDA libraries that a CPU torch does not bring. It then cannot load, and
`import torchvision` fails because the operator `torchvision::nms` is missing. Defining the two operators that the
import looks for heals it; `nms` gets a CPU implementation. Nothing happens where the library loads.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
from mmengine.logging import print_log
from torch import Tensor

from frozenmm.compat.mmcv_ext import Operators

_library: torch.library.Library | None = None  # must live as long as the process, else the operators vanish


def _library_loads(folder: Path) -> bool:
    for suffix in ('.so', *EXTENSION_SUFFIXES):
        path = folder / f'_C{suffix}'
        if path.exists():
            try:
                torch.ops.load_library(path)
            except OSError:
                return False
            return True
    return False


class _AfterImport(Loader):
    """Runs torchvision's own loader, then tells it that `nms` exists (before, its import would break)."""

    def __init__(self, inner: Loader) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        setattr(sys.modules['torchvision.extension'], '_has_ops', lambda: True)  # noqa: B010  (no name mypy knows)


class _Finder(MetaPathFinder):

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != 'torchvision':
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _AfterImport(spec.loader)
        return spec


def install(operators: Operators) -> bool:
    """Define `torchvision::nms` and `torchvision::qnms` where torchvision's own library cannot; True when it did so."""
    global _library
    if _library is not None or 'torchvision' in sys.modules or hasattr(torch.ops.torchvision, 'nms'):
        return False
    spec = find_spec('torchvision')
    if spec is None or not spec.submodule_search_locations or _library_loads(Path(spec.submodule_search_locations[0])):
        return False
    _library = torch.library.Library('torchvision', 'DEF')
    for name in 'nms', 'qnms':
        _library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

    def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        return operators()['nms'](dets, scores, iou_threshold, 0)

    _library.impl('nms', nms, 'CPU')
    sys.meta_path.insert(0, _Finder())
    print_log('torchvision\'s compiled library does not load beside this torch: frozenmm.compat defines '
              '`torchvision::nms`', logger='current', level=10)
    return True
