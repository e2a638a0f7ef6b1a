"""Generated detection scenes: a data set for demonstrations and tests that needs no download.

Objects cut from scikit-image's bundled photographs lie on other bundled textures. Grounds and lights of the test images
never occur in training. The result is a folder in COCO layout, which any tool reads.
"""
from frozenmm.demo.scenes.cutouts import CLASSES
from frozenmm.demo.scenes.painter import Scene, paint
from frozenmm.demo.scenes.writer import SceneSettings, make_scenes, require_scenes, write_scenes

__all__ = ['CLASSES', 'Scene', 'SceneSettings', 'make_scenes', 'paint', 'require_scenes', 'write_scenes']
