"""The old place of `frozenmm.compat.image_sources`."""
from frozenmm.deprecation import moved_names

__getattr__ = moved_names(
    __name__, removed_in='0.3', NamedImage='frozenmm.compat.image_sources.NamedImage',
    read_images='frozenmm.compat.image_sources.read_images',
    read_image_file='frozenmm.compat.image_files.read_image_file')
