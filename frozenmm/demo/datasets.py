"""An index and nothing else: the registered data sets of the demonstrations."""
from frozenmm.registry import installed

__all__ = []

if installed('mmcv'):
    from frozenmm.demo.prompt_scenes import PromptScenes
    from frozenmm.demo.scene_episodes import SceneEpisodes
    __all__ += ['PromptScenes', 'SceneEpisodes']
if installed('mmdet'):
    from frozenmm.demo.collages import Collages
    from frozenmm.demo.generated_scenes import GeneratedScenes, GeneratedScenesPanoptic
    __all__ += ['Collages', 'GeneratedScenes', 'GeneratedScenesPanoptic']
if installed('mmseg'):
    from frozenmm.demo.generated_rooms import GeneratedRooms
    __all__ += ['GeneratedRooms']
