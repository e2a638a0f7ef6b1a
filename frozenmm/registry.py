"""The registries of frozenmm: children of mmengine's, with scope `frozenmm`.

A plain mmdet or mmseg config names our modules as `type='frozenmm.Name'`; the modules are imported when the first name
is looked up. Rooms whose dependency (mmdet, mmseg) is not installed are left out, so the others still work.
"""
from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from mmengine import registry as mm

_ROOMS = {
    'model': ('frozenmm.models', ),
    'dataset': ('frozenmm.datasets', ),
    'transform': ('frozenmm.datasets', ),
    'metric': ('frozenmm.evaluation', ),
    'hook': ('frozenmm.engine', ),
    'optimizer': ('frozenmm.engine', ),
    'visualizer': ('frozenmm.visualization', ),
    'inferencer': ('frozenmm.apis', ),
}


def _child(name: str, parent: mm.Registry, rooms: str, build: Callable | None = None) -> mm.Registry:
    return mm.Registry(name, build_func=build, parent=parent, scope='frozenmm', locations=list(_ROOMS[rooms]))


def build_and_join(cfg: object, registry: mm.Registry, default_args: object = None) -> object:
    """As mmengine builds a model; then its frozen parts learn what they need of it."""
    from frozenmm.foundation.joining import join
    return join(mm.build_model_from_cfg(cfg, registry, default_args))


MODELS = _child('model', mm.MODELS, 'model', build_and_join)
MODEL_WRAPPERS = _child('model_wrapper', mm.MODEL_WRAPPERS, 'model')
TASK_UTILS = _child('task util', mm.TASK_UTILS, 'model')
DATASETS = _child('dataset', mm.DATASETS, 'dataset')
DATA_SAMPLERS = _child('data sampler', mm.DATA_SAMPLERS, 'dataset')
TRANSFORMS = _child('transform', mm.TRANSFORMS, 'transform')
METRICS = _child('metric', mm.METRICS, 'metric')
HOOKS = _child('hook', mm.HOOKS, 'hook')
LOOPS = _child('loop', mm.LOOPS, 'hook')
OPTIM_WRAPPERS = _child('optim_wrapper', mm.OPTIM_WRAPPERS, 'optimizer')
OPTIM_WRAPPER_CONSTRUCTORS = _child('optimizer wrapper constructor', mm.OPTIM_WRAPPER_CONSTRUCTORS, 'optimizer')
VISUALIZERS = _child('visualizer', mm.VISUALIZERS, 'visualizer')
INFERENCERS = _child('inferencer', mm.INFERENCERS, 'inferencer')


def installed(package: str) -> bool:
    """Whether a top-level package can be imported, found without importing it."""
    return find_spec(package) is not None
