"""Official checkpoint layouts -> ours: key maps as data, and a report that accounts for every key."""
from frozenmm.convert.rename import ConversionReport, Rename, rename_keys
from frozenmm.deprecation import moved_names

__all__ = ['ConversionReport', 'Rename', 'rename_keys']
__getattr__ = moved_names(__name__, removed_in='0.3', Report='frozenmm.convert.rename.ConversionReport')
