"""An index and nothing else: the registered models and the metric of the demonstrations."""
from frozenmm.demo.light_depth import LightDepth
from frozenmm.demo.sam.prompted_iou import PromptedIoU
from frozenmm.demo.sam.tower import DemoSAMPrompter, DemoSAMTower
from frozenmm.demo.sam.training import DemoSAM
from frozenmm.registry import installed

__all__ = ['DemoSAM', 'DemoSAMPrompter', 'DemoSAMTower', 'LightDepth', 'PromptedIoU']

if installed('mmseg'):
    from frozenmm.demo.light_depth_head import LightDepthHead
    __all__ += ['LightDepthHead']
