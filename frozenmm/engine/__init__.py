"""Hooks, and what the command-line tools do."""
from frozenmm.engine.accelerate_hook import AccelerateHook
from frozenmm.engine.autocast import AutocastOptimWrapper
from frozenmm.engine.progress import ProgressHook
from frozenmm.engine.time_budget import TimeBudgetHook
from frozenmm.registry import installed

__all__ = ['AccelerateHook', 'AutocastOptimWrapper', 'ProgressHook', 'TimeBudgetHook']

if installed('mmcv'):
    from frozenmm.engine.beside_truth import BesideTruthHook
    __all__ += ['BesideTruthHook']
