"""Inferencers: from images to results in one call. Those that build on mmdet are there when it is installed."""
from frozenmm.registry import installed

__all__ = []

if installed('mmdet'):
    from frozenmm.apis.open_vocabulary_inferencer import OpenVocabularyInferencer
    __all__ += ['OpenVocabularyInferencer']
