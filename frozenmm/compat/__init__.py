"""The only door to fragile dependencies: mmcv without compiled operators, torchvision, versions, checkpoints.

`fill_holes` runs at `import frozenmm`. It acts only where something is missing, steps back when the real thing is
there, and logs what it did once. What changes behaviour (`checkpoint.open_checkpoints_safely`,
`frozenmm.ops.accelerate`) acts only when asked.
"""
from __future__ import annotations

from importlib.util import find_spec

from frozenmm.compat.dependencies import missing_package, require
from frozenmm.deprecation import moved_names

if find_spec('mmengine') is None:
    raise missing_package('mmengine', 'frozenmm')

from frozenmm.compat import mmcv_ext, torchvision_ops
from frozenmm.compat.versions import IncompatibleVersions, Problem, explained, problems

__all__ = ['IncompatibleVersions', 'Problem', 'explained', 'fill_holes', 'problems', 'require']
__getattr__ = moved_names(__name__, removed_in='0.3', MissingDependency='frozenmm.errors.MissingPackage')


def fill_holes(operators: mmcv_ext.Operators) -> None:
    """Install the stand-ins for a missing `mmcv._ext` and torchvision library; safe to call again.

    Args:
        operators: gives the operators that are served, by mmcv's name; called when the first one is needed.
    """
    mmcv_ext.install(operators)
    torchvision_ops.install(operators)
