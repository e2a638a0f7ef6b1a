"""An index and nothing else: hooks, loops and optimizer parts that are registered."""
from frozenmm.engine.accelerate_hook import AccelerateHook
from frozenmm.engine.autocast import AutocastOptimWrapper
from frozenmm.engine.checkpoints import SafeCheckpointHook
from frozenmm.engine.exact_resume import ExactResumeHook
from frozenmm.engine.mask_annealing import MaskAnnealingHook
from frozenmm.engine.progress import ProgressHook
from frozenmm.engine.threads_hook import ThreadsHook
from frozenmm.engine.time_budget import BudgetTrainLoop, TimeBudgetHook
from frozenmm.engine.warmup_cosine import FusionOptimWrapperConstructor, WarmupCosineHook
from frozenmm.registry import installed

__all__ = ['AccelerateHook', 'AutocastOptimWrapper', 'BudgetTrainLoop', 'ExactResumeHook',
           'FusionOptimWrapperConstructor', 'MaskAnnealingHook', 'ProgressHook', 'SafeCheckpointHook', 'ThreadsHook',
           'TimeBudgetHook', 'WarmupCosineHook']

if installed('mmcv'):
    from frozenmm.engine.beside_truth import BesideTruthHook
    from frozenmm.engine.run_pictures import RunPicturesHook, SamplesHook
    __all__ += ['BesideTruthHook', 'RunPicturesHook', 'SamplesHook']
