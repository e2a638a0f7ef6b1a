"""The registries of frozenmm: children of mmengine's, with scope `frozenmm`.

A plain mmdet or mmseg config names our modules as `type='frozenmm.Name'`; the modules are imported when the first name
is looked up. Rooms whose dependency (mmdet, mmseg) is not installed are left out, so the others still work.
"""
from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol, TypeVar, cast, runtime_checkable

from mmengine import registry as mm
from torch import nn

M = TypeVar('M')

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


@runtime_checkable
class Joining(Protocol):
    """A module that wants to see the model that it is a part of."""

    def join(self, model: nn.Module) -> None:
        """Called with the innermost owner that has a data preprocessor; again does no harm."""


def join(model: M) -> M:
    """Tell the frozen parts of a built model about it; returns the model.

    A model is any module with a `data_preprocessor`: every mmengine, mmdet and mmseg model. Of models inside models
    (semi-supervised ones), a part belongs to the innermost.

    Raises:
        UserError: what a part refuses, e.g. statistics that contradict the model's.
    """
    owners: dict[nn.Module, nn.Module] = {}
    for owner in model.modules() if isinstance(model, nn.Module) else ():
        if isinstance(getattr(owner, 'data_preprocessor', None), nn.Module):
            # an owner comes before what it owns, so the innermost one stays
            owners.update((part, owner) for part in owner.modules() if isinstance(part, Joining))
    for part, owner in owners.items():
        cast(Joining, part).join(owner)
    return model


def build_and_join(cfg: object, registry: mm.Registry, default_args: object = None) -> object:
    """As mmengine builds a model; then its frozen parts learn what they need of it."""
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
