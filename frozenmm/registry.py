"""The registries of frozenmm: children of mmengine's, with scope `frozenmm`.

A plain mmdet or mmseg config names our modules as `type='frozenmm.Name'`; the modules are imported when the first name
is looked up. Rooms whose dependency (mmdet, mmseg) is not installed are left out, so the others still work; so is the
room of demonstrations where it has been removed.
"""
from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

from mmengine import registry as mm
from torch import nn

from frozenmm.errors import MissingPackage

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
DEMONSTRATIONS = {'Collages', 'DemoSAM', 'DemoSAMPrompter', 'DemoSAMTower', 'GeneratedRooms', 'GeneratedScenes',
                  'GeneratedScenesPanoptic', 'LightDepth', 'LightDepthHead', 'PromptScenes', 'PromptedIoU',
                  'SceneEpisodes'}
"""Registered classes of `frozenmm.demo`, so that an error can say where they are when that room has been removed."""
_DEMO = Path(__file__).with_name('demo')
_HAS_DEMO = _DEMO.joinpath('__init__.py').is_file()  # a removed folder may leave its __pycache__ behind
if _HAS_DEMO:
    for _role, _index in (('model', 'models'), ('dataset', 'datasets'), ('metric', 'sam.prompted_iou')):
        _ROOMS[_role] += (f'frozenmm.demo.{_index}', )
INDEXES = _ROOMS['model'] + _ROOMS['dataset']
"""Modules that export registered classes, for `frozenmm.Name`."""


class _Child(mm.Registry):
    """A registry that says so when a demonstration is asked for and the room of demonstrations is not there."""

    def get(self, key: str) -> type | None:
        """See mmengine.

        Raises:
            MissingPackage: a class of `frozenmm.demo`, which has been removed.
        """
        found = super().get(key)
        if found is None and key.removeprefix('frozenmm.') in DEMONSTRATIONS and not _HAS_DEMO:
            raise MissingPackage(f'frozenmm.{key.removeprefix("frozenmm.")} is demonstration material, and this '
                                 f'installation has no folder {_DEMO}; name another class in the config, or install '
                                 'frozenmm whole')
        return found


def _child(name: str, parent: mm.Registry, rooms: str, build: Callable | None = None) -> mm.Registry:
    return _Child(name, build_func=build, parent=parent, scope='frozenmm', locations=list(_ROOMS[rooms]))


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
