"""Data sets and transforms. Those that build on mmdet are there when mmdet is installed."""
from frozenmm.registry import installed

__all__ = []

if installed('mmcv'):
    from frozenmm.datasets.stored_variants import StoredVariants
    __all__ += ['StoredVariants']
if installed('mmdet'):
    from frozenmm.datasets.coco_panoptic import CocoPanoptic
    from frozenmm.datasets.generated_scenes import GeneratedScenes, GeneratedScenesPanoptic
    from frozenmm.datasets.panoptic_maps import LoadPanopticMaps
    __all__ += ['CocoPanoptic', 'GeneratedScenes', 'GeneratedScenesPanoptic', 'LoadPanopticMaps']
