"""Data sets that make their own files: generated pictures, where a folder lacks them."""
from __future__ import annotations

from collections.abc import Mapping

from frozenmm.registry import DATASETS

_INNER = ('dataset', 'datasets', 'source')


def make_missing_files(*settings: object) -> None:
    """Let the data sets of configs make what their folders lack, before they are built.

    Only classes of frozenmm that have `make_files(data_root, settings)` do so; they say in a line what they make.

    Args:
        settings: configs of data sets or loaders, also below wrappers; None counts as nothing.
    """
    for node in settings:
        if isinstance(node, list | tuple):
            make_missing_files(*node)
        elif isinstance(node, Mapping):
            make = getattr(_class_of(node.get('type')), 'make_files', None)
            if make is not None:
                make(node.get('data_root'), node.get('settings'))
            make_missing_files(*(node.get(key) for key in _INNER))


def _class_of(kind: object) -> object:
    if not isinstance(kind, str):
        return kind
    DATASETS.import_from_location()
    return DATASETS.module_dict.get(kind.rpartition('.')[2])
