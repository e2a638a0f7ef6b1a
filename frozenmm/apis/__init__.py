"""Inferencers: from images to results in one call. Those that need mmdet or mmseg are there when it is installed."""
from frozenmm.apis.base import RunOptions
from frozenmm.apis.choose import inferencer
from frozenmm.apis.depth_inferencer import DepthInferencer
from frozenmm.apis.sharing import export_run
from frozenmm.registry import installed

__all__ = ['DepthInferencer', 'RunOptions', 'export_run', 'inferencer']

if installed('mmdet'):
    from frozenmm.apis.detection_inferencer import DetectionInferencer
    from frozenmm.apis.open_vocabulary_inferencer import OpenVocabularyInferencer
    __all__ += ['DetectionInferencer', 'OpenVocabularyInferencer']

if installed('mmdet') and installed('mmseg'):
    from frozenmm.apis.fusioner_inferencer import FusionerInferencer
    from frozenmm.apis.semantic_inferencer import SemanticInferencer
    __all__ += ['FusionerInferencer', 'SemanticInferencer']

if installed('mmseg'):
    from frozenmm.apis.phrase_inferencer import PhraseInferencer
    __all__ += ['PhraseInferencer']
