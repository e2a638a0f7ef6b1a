"""Data sets and transforms. Those that build on mmdet are there when mmdet is installed."""
from frozenmm.datasets.referring import PhraseMasks
from frozenmm.registry import installed

__all__ = ['PhraseMasks']

if installed('mmcv'):
    from frozenmm.datasets.depth_points import SampleDepthPoints
    from frozenmm.datasets.episode_augmentation import FusionerAugmentation, PackEpisode
    from frozenmm.datasets.episodes import EpisodicSegDataset, LoadEpisodeMap
    from frozenmm.datasets.few_shot import COCO20iDataset, FSS1000Dataset, PASCAL5iDataset
    from frozenmm.datasets.label_maps import LoadLabelMap, SemanticMaps
    from frozenmm.datasets.mosaic import Mosaic4Dataset
    from frozenmm.datasets.stored_variants import StoredVariants
    __all__ += ['COCO20iDataset', 'EpisodicSegDataset', 'FSS1000Dataset', 'FusionerAugmentation', 'LoadEpisodeMap',
                'LoadLabelMap', 'Mosaic4Dataset', 'PASCAL5iDataset', 'PackEpisode', 'SampleDepthPoints',
                'SemanticMaps', 'StoredVariants']
if installed('mmdet'):
    from frozenmm.datasets.coco_panoptic import CocoPanoptic
    from frozenmm.datasets.lvis_images import LVISBoxes, LVISImages
    from frozenmm.datasets.panoptic_maps import LoadPanopticMaps
    __all__ += ['CocoPanoptic', 'LVISBoxes', 'LVISImages', 'LoadPanopticMaps']
