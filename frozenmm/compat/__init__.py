"""The only door to fragile dependencies: mmcv without compiled operators, torchvision, versions, checkpoints.

`fill_holes` runs at `import frozenmm`. It acts only where something is missing, steps back when the real thing is
there, and logs what it did once. What changes behaviour (`checkpoint.trust_folder`, `frozenmm.ops.accelerate`) acts
only when asked.
"""
from __future__ import annotations

from importlib.util import find_spec

from frozenmm.compat.dependencies import MissingDependency, require

if find_spec('mmengine') is None:
    raise MissingDependency('mmengine', 'frozenmm')

from frozenmm.compat import mmcv_ext, torchvision_ops
from frozenmm.compat.versions import IncompatibleVersions, Problem, explained, problems

__all__ = ['IncompatibleVersions', 'MissingDependency', 'Problem', 'explained', 'fill_holes', 'problems', 'require']


def fill_holes() -> None:
    """Install the stand-ins for a missing `mmcv._ext` and torchvision library; safe to call again."""
    mmcv_ext.install()
    torchvision_ops.install()
