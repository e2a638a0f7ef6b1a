"""Official checkpoint layouts -> ours: key maps as data, and a report that accounts for every key."""
from frozenmm.convert.rename import Rename, Report, rename_keys

__all__ = ['Rename', 'Report', 'rename_keys']
