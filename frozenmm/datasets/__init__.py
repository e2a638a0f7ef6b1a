"""Data sets and transforms. Those that build on mmdet are there when mmdet is installed."""
from frozenmm.registry import installed

__all__ = []

if installed('mmcv'):
    from frozenmm.datasets.episode_augmentation import FusionerAugmentation, PackEpisode
    from frozenmm.datasets.episodes import EpisodicSegDataset, LoadEpisodeMap
    from frozenmm.datasets.few_shot import COCO20iDataset, FSS1000Dataset, PASCAL5iDataset
    from frozenmm.datasets.label_maps import LoadLabelMap, SemanticMaps
    from frozenmm.datasets.mosaic import Mosaic4Dataset
    from frozenmm.datasets.prompt_scenes import PromptScenes
    from frozenmm.datasets.scene_episodes import SceneEpisodes
    from frozenmm.datasets.stored_variants import StoredVariants
    __all__ += ['COCO20iDataset', 'EpisodicSegDataset', 'FSS1000Dataset', 'FusionerAugmentation', 'LoadEpisodeMap',
                'LoadLabelMap', 'Mosaic4Dataset', 'PASCAL5iDataset', 'PackEpisode', 'PromptScenes', 'SceneEpisodes',
                'SemanticMaps', 'StoredVariants']
if installed('mmdet'):
    from frozenmm.datasets.coco_panoptic import CocoPanoptic
    from frozenmm.datasets.collages import Collages
    from frozenmm.datasets.generated_scenes import GeneratedScenes, GeneratedScenesPanoptic
    from frozenmm.datasets.lvis_images import LVISImages
    from frozenmm.datasets.panoptic_maps import LoadPanopticMaps
    __all__ += ['CocoPanoptic', 'Collages', 'GeneratedScenes', 'GeneratedScenesPanoptic', 'LVISImages',
                'LoadPanopticMaps']
if installed('mmseg'):
    from frozenmm.datasets.generated_rooms import GeneratedRooms, SampleDepthPoints
    __all__ += ['GeneratedRooms', 'SampleDepthPoints']
