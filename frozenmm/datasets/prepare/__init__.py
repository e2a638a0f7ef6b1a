"""Data sets brought into the layout that the configs read; see `prepare` and `tools/prepare_data.py`."""
from frozenmm.datasets.prepare.catalogue import PREPARATIONS, listing, prepare

__all__ = ['PREPARATIONS', 'listing', 'prepare']
